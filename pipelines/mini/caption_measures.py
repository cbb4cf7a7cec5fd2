"""Accuracy of the captioner of `mini`: which parts of its captions are true."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.mini.blip import SIZE
from pipelines.mini.captioner_params import CaptionerParams
from pipelines.mini.metrics import share_with_interval
from pipelines.mini.teacher_features import PhotoFacts, facts_of
from pipelines.mini.world_data import WorldData
from taming_core.captions.captioner import load_captioner
from taming_core.seeds import seed_for
from taming_core.world.artwork import World
from taming_core.world.photos import render
from taming_core.world.styles import STYLES
from taming_core.world.wording import Facts, sentence
from taming_core.world.wording import facts_of as parse_caption

SPLITS = ("train", "unseen-concepts")


def measure(folder: Path, data: WorldData, p: CaptionerParams) -> dict[str, Any]:
    """Shares of captions of new photos, of trained and of held-out concepts, that are right in each part."""
    describe = load_captioner(str(folder), data.device, num_beams=3, max_new_tokens=32)
    metrics: dict[str, Any] = {"photos": p.eval_photos}
    seed = seed_for(p.seed, "captioner/test", 0)
    for split in SPLITS:
        photos = render(data.world, data.pictures, seed, 0, p.eval_photos, SIZE, split, p.chances)
        captions = describe([image.numpy() for image in photos.image], "")
        result = caption_metrics(captions, [facts_of(data.world, plan) for plan in photos.plans], data.world)
        metrics |= {f"{split}/{part}": value for part, value in result.items()}
    return metrics


def caption_metrics(captions: Sequence[str], truth: Sequence[PhotoFacts], world: World) -> dict[str, float]:
    """Shares of captions that are right in each part, and how they are worded."""
    parsed = [parse_caption(text, world.scenes) for text in captions]
    nouns = {c.name: c.noun for c in world.cutouts}
    rows, metrics = [correct_parts(c, t, nouns) for c, t in zip(parsed, truth, strict=True)], dict[str, float]()
    for part in rows[0]:
        given = [(bool(row[part]), t.name) for row, t in zip(rows, truth, strict=True) if row[part] is not None]
        metrics |= (
            share_with_interval(part, [right for right, _ in given], [name for _, name in given]) if given else {}
        )
    for style in STYLES:
        own = [bool(row["classed"]) for row, t in zip(rows, truth, strict=True) if t.style == style]
        metrics |= {f"classed/{style}": float(np.mean(own))} if own else {}
    return metrics | wording_shares(captions, parsed, truth, nouns)


def wording_shares(
    captions: Sequence[str], parsed: Sequence[Facts], truth: Sequence[PhotoFacts], nouns: dict[str, str]
) -> dict[str, float]:
    """How often captions have a name instead of a class, the canonical wording, and a size where it is notable."""
    shares = {
        "names_said": [c.object_words in nouns for c in parsed],
        "canonical": [canonical(c) == text for c, text in zip(parsed, captions, strict=True)],
        "sizes_said": [bool(c.size) for c, t in zip(parsed, truth, strict=True) if t.size],
    }
    return {name: float(np.mean(values)) for name, values in shares.items() if values}


def correct_parts(caption: Facts, truth: PhotoFacts, nouns: dict[str, str]) -> dict[str, bool | None]:
    """Which parts of a caption are right; `size` is None where there is none. `nouns` maps names to classes.

    `named`: the object's own name; `classed`: its name or class; `kind`: any name of the right class.
    """
    # "small" may be part of a name.
    named = truth.name in (caption.object_words, f"{caption.size} {caption.object_words}")
    return {
        "style": caption.style == truth.style,
        "scene": caption.scene == truth.scene,
        "named": named,
        "classed": named or caption.object_words == truth.noun,
        "kind": named or nouns.get(caption.object_words, caption.object_words) == truth.noun,
        "size": caption.size == truth.size if caption.size else None,
    }


def canonical(c: Facts) -> str:
    """The caption of these facts in the canonical wording."""
    return sentence(c.style, [f"{c.size} {c.object_words}".strip()], c.scene, c.place)
