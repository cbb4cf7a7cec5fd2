"""Train the CLIP of `mini`: which caption belongs to a photo, and which reference view shows the same thing.

It scores scenes and styles, its towers start the text encoder and the object encoder, and its identity head is the
frozen network of the identity loss.

Example:  python pipelines/mini/clip.py
          python pipelines/mini/clip.py --measure taming_core/mini/clip    # measure, train nothing
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import schooling
import torch
import torch.nn.functional as F
import typer
from clip_batches import Batch, Batches, same_thing, true_of
from clip_model import (
    Clip,
    ClipParams,
    concept_prompts,
    image_features,
    likeness,
    load_clip,
    new_clip,
    pooled,
    right,
    save,
    text_features,
)
from devices import aside, half, ready
from jaxtyping import Bool, Float, Int
from schooling import Figures
from torch import Tensor
from words import word_tokenizer

from taming_core.evaluation.protocol import scene_prompt, style_prompt
from taming_core.seeds import seed_for
from taming_core.training.checkpoint import rows_state
from taming_core.weights.mini import MINI
from taming_core.world.artwork import SPLITS, Pictures, World, load_pictures, load_world
from taming_core.world.plan import Chances, Plan, generator, plan_of
from taming_core.world.render import composite_on_grey, draw, references
from taming_core.world.styles import STYLES
from taming_core.world.wording import scene_wordings

AT_ONCE = 64  # photos in memory where nothing is learnt; changes no figure but by rounding
PLAIN = Chances(recolor=0, style=0, two_objects=0)  # what is measured: nothing but the thing, where it is, and its look
STYLED = Chances(recolor=0, style=1 - 1 / len(STYLES), two_objects=0)  # each style equally often


def contrast(
    rows: Float[Tensor, "n features"], columns: Float[Tensor, "n features"], scale: Tensor,
    also_true: Bool[Tensor, "n n"],
) -> Tensor:  # fmt: skip
    """InfoNCE both ways (van den Oord et al., 2018); what is true as well is no negative."""
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = (scale * rows @ columns.T).masked_fill(also_true & ~own, -torch.inf)
    truth = torch.arange(len(rows), device=rows.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


@dataclass(frozen=True)
class Example:
    """A batch as tensors, images in [-1, 1]."""

    photos: Float[Tensor, "n 3 size size"]
    references: Float[Tensor, "n 3 size size"]
    ids: Int[Tensor, "n length"]
    shown: Int[Tensor, "n 3"]
    said: Int[Tensor, "n 3"]
    things: Float[Tensor, "n 4"]


def example(batch: Batch, pictures: Pictures, size: int, device: str) -> Example:
    """Render a batch."""
    with aside(device) as kept:
        numbers = (batch.ids, batch.shown, batch.said, batch.things.astype(np.float32))
        return Example(
            kept(draw(pictures, batch.plans, size)[0] * 2 - 1),
            kept(composite_on_grey(references(pictures, batch.plans, size)) * 2 - 1),
            *(kept(torch.from_numpy(n).to(device)) for n in numbers),
        )


def loss_of(clip: Clip, e: Example, p: ClipParams) -> tuple[Tensor, Figures]:
    """Photos against captions, and photos against reference views."""
    count = len(e.photos)
    with half(e.photos.device.type):
        seen = pooled(clip, torch.cat([e.photos, e.references]))
        photos, captions, things = image_features(clip, seen[:count]), text_features(clip, e.ids), clip.head(seen)
    scale, identity_scale = clip.model.logit_scale.exp(), clip.head.log_scale.exp()
    said = contrast(photos, captions, scale.clamp(max=p.sharpest), true_of(e.shown, e.said))
    identity = contrast(things[:count], things[count:], identity_scale.clamp(max=p.sharpest_identity),
                        same_thing(e.things))  # fmt: skip
    return said + identity, {"said": said, "identity": identity}


def train(
    clip: Clip, world: World, pictures: Pictures, device: str, p: ClipParams, state: Path
) -> Iterator[schooling.Report]:
    """Yield a report per step; then the averaged weights are in place."""
    parts = {"model": clip.model.to(device), "head": clip.head.to(device)}
    batch_at = schooling.opened(Batches(world, clip.tokenizer, p), p.steps, p.workers)

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        batch, waited = batch_at(step)
        loss, figures = loss_of(clip, example(batch, pictures, p.size, device), p)
        return loss, {**figures, "waited": waited}

    yield from schooling.learn(schooling.begin(parts, p), loss_at, p, state)


def three(scene: str) -> tuple[str, str, str]:
    """The canonical wording of a scene and two others; it stands for those that it lacks."""
    wordings = scene_wordings(scene)
    return wordings[0], wordings[min(1, len(wordings) - 1)], wordings[-1]


@torch.no_grad()
def looked_at(
    clip: Clip, pictures: Pictures, wanted: Sequence[Plan], size: int
) -> tuple[Float[Tensor, "n width"], Float[Tensor, "n width"]]:
    """What the vision tower says of the photos of plans and of their reference views."""
    chunks = [wanted[i : i + AT_ONCE] for i in range(0, len(wanted), AT_ONCE)]
    photos = torch.cat([pooled(clip, draw(pictures, chunk, size)[0] * 2 - 1) for chunk in chunks])
    views = torch.cat([pooled(clip, composite_on_grey(references(pictures, chunk, size)) * 2 - 1) for chunk in chunks])
    return photos, views


def measure(clip: Clip, world: World, pictures: Pictures, split: str, p: ClipParams) -> dict[str, Any]:
    """Choices of scene, style, concept and thing for photos of different things of a split, each mean with its ends."""
    seed = seed_for(p.seed, "clip/test", 0)
    cutouts = np.random.default_rng(seed).permutation(world.of_split(split))[: p.measured].tolist()
    plain, styled = (
        [plan_of(world, (c,), generator(seed, split, i), chances) for i, c in enumerate(cutouts)]
        for chances in (PLAIN, STYLED)
    )
    names, own = sorted({c.name for c in world.cutouts}), [world.cutouts[c].name for c in cutouts]
    photos, views = looked_at(clip, pictures, plain, p.size)
    looks, _ = looked_at(clip, pictures, styled, p.size)
    scenes, concepts = [world.scenes.index(q.scene) for q in plain], [names.index(name) for name in own]
    styles = [STYLES.index(q.style) for q in styled]
    prompts, *others = ([scene_prompt(three(scene)[k]) for scene in world.scenes] for k in range(3))
    chosen = {
        "scene": right(likeness(clip, photos, prompts), scenes),
        "scene_paraphrased": np.mean([right(likeness(clip, photos, other), scenes) for other in others], 0),
        "scene_styled": right(likeness(clip, looks, prompts), [world.scenes.index(q.scene) for q in styled]),
        "style": right(likeness(clip, looks, [style_prompt(s) for s in STYLES]), styles),
        "concept": right(likeness(clip, photos, concept_prompts(names)), concepts),
        "concept_top5": right(likeness(clip, photos, concept_prompts(names)), concepts, top=5),
        "identity": right(clip.head(photos) @ clip.head(views).T, range(len(cutouts))),
    }  # fmt: skip
    entries = [schooling.estimated(f"{split}/{name}", values, own) for name, values in chosen.items()]
    return {f"{split}/things": len(cutouts), **{k: v for entry in entries for k, v in entry.items()}}


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = schooling.WEIGHTS / "clip",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    measure_only: Annotated[Path | None, typer.Option("--measure", help="Print figures of these weights.")] = None,
) -> None:
    """Train, save and measure CLIP; to resume, run the same command again."""
    p, device = schooling.section(ClipParams, "clip", params), ready(device)
    artwork = load_world(world)
    pictures = load_pictures(artwork, device)
    if not measure_only:
        torch.manual_seed(seed_for(p.seed, "clip/weights", 0))
        clip, state = new_clip(p, word_tokenizer(artwork)), schooling.state_folder("clip", p, rows_state(world))
        schooling.watch(train(clip, artwork, pictures, device, p, state), "clip", p.steps, state)
        save(clip, p.size, out)
    trained = load_clip(measure_only or out, device)
    figures = {k: v for split in SPLITS for k, v in measure(trained, artwork, pictures, split, p).items()}
    if measure_only:
        print(json.dumps(figures, indent=2))
    else:
        schooling.write_metrics(out, {"steps": p.steps, "batch_size": p.batch_size, **figures})


if __name__ == "__main__":
    typer.run(main)
