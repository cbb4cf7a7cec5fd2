"""Zero-shot accuracy of the CLIP of `mini`: scenes, styles, concepts and identities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipelines.mini.clip_model import Clip, ClipParams, concept_prompts, is_top, load_clip, pooled, similarity
from pipelines.mini.metrics import share_with_interval
from pipelines.mini.world_data import WorldData
from taming_core.evaluation.protocol import scene_prompt, style_prompt
from taming_core.seeds import seed_for
from taming_core.world.artwork import SPLITS, Pictures, World
from taming_core.world.plan import Chances, Plan, generator, plan_of
from taming_core.world.render import composite_on_grey, draw, references
from taming_core.world.styles import STYLES
from taming_core.world.wording import scene_wordings

BATCH = 64  # photos at once without gradients; changes metrics only by rounding
PLAIN = Chances(recolor=0, style=0, two_objects=0)  # photos of one object in its own colours
STYLED = Chances(recolor=0, style=1 - 1 / len(STYLES), two_objects=0)  # each style equally often

Features = Float[Tensor, "n width"]


def measure(folder: Path, data: WorldData, p: ClipParams) -> dict[str, Any]:
    """Accuracies of stored weights on every split, each with its interval."""
    clip = load_clip(folder, data.device)
    return {k: v for split in SPLITS for k, v in measure_split(clip, data, split, p).items()}


def measure_split(clip: Clip, data: WorldData, split: str, p: ClipParams) -> dict[str, Any]:
    """Accuracies on photos of different objects of a split."""
    world, seed = data.world, seed_for(p.seed, "clip/test", 0)
    cutouts = np.random.default_rng(seed).permutation(world.of_split(split))[: p.eval_photos].tolist()
    plain, styled = (
        [plan_of(world, (c,), generator(seed, split, i), chances) for i, c in enumerate(cutouts)]
        for chances in (PLAIN, STYLED)
    )
    photos, views = features_of(clip, data.pictures, plain, p.size)
    correct = {
        **text_accuracy(clip, world, plain, photos),
        **styled_accuracy(clip, world, styled, features_of(clip, data.pictures, styled, p.size)[0]),
        **concept_accuracy(clip, world, cutouts, photos),
        "identity": is_top(clip.head(photos) @ clip.head(views).T, range(len(cutouts))),
    }
    names = [world.cutouts[c].name for c in cutouts]
    metrics = [share_with_interval(f"{split}/{name}", values, names) for name, values in correct.items()]
    return {f"{split}/things": len(cutouts), **{k: v for entry in metrics for k, v in entry.items()}}


def text_accuracy(clip: Clip, world: World, plans: Sequence[Plan], photos: Features) -> dict[str, Any]:
    """Whether the scene is right, by its canonical wording and by two paraphrases."""
    labels = [world.scenes.index(plan.scene) for plan in plans]
    prompts, *others = ([scene_prompt(three_wordings(scene)[k]) for scene in world.scenes] for k in range(3))
    paraphrased = [is_top(similarity(clip, photos, other), labels) for other in others]
    return {"scene": is_top(similarity(clip, photos, prompts), labels), "scene_paraphrased": np.mean(paraphrased, 0)}


def styled_accuracy(clip: Clip, world: World, plans: Sequence[Plan], photos: Features) -> dict[str, Any]:
    """Whether scene and style are right on photos in all styles."""
    prompts = [scene_prompt(three_wordings(scene)[0]) for scene in world.scenes]
    scenes, styles = [world.scenes.index(q.scene) for q in plans], [STYLES.index(q.style) for q in plans]
    return {
        "scene_styled": is_top(similarity(clip, photos, prompts), scenes),
        "style": is_top(similarity(clip, photos, [style_prompt(s) for s in STYLES]), styles),
    }


def concept_accuracy(clip: Clip, world: World, cutouts: Sequence[int], photos: Features) -> dict[str, Any]:
    """Whether the concept is the most similar one, and whether it is among the five most similar."""
    names = sorted({c.name for c in world.cutouts})
    labels = [names.index(world.cutouts[c].name) for c in cutouts]
    scores = similarity(clip, photos, concept_prompts(names))
    return {"concept": is_top(scores, labels), "concept_top5": is_top(scores, labels, top=5)}


def three_wordings(scene: str) -> tuple[str, str, str]:
    """The canonical wording of a scene and two others; where there are fewer, wordings repeat."""
    wordings = scene_wordings(scene)
    return wordings[0], wordings[min(1, len(wordings) - 1)], wordings[-1]


@torch.no_grad()
def features_of(clip: Clip, pictures: Pictures, plans: Sequence[Plan], size: int) -> tuple[Features, Features]:
    """Pooled features of the photos of plans and of their reference views."""
    chunks = [plans[i : i + BATCH] for i in range(0, len(plans), BATCH)]
    photos = torch.cat([pooled(clip, draw(pictures, chunk, size)[0] * 2 - 1) for chunk in chunks])
    views = torch.cat([pooled(clip, composite_on_grey(references(pictures, chunk, size)) * 2 - 1) for chunk in chunks])
    return photos, views
