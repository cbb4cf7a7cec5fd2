"""The artwork of the mini world: cut-outs of objects in several designs, and backdrops of scenes."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.weights.mini import MINI

SPLITS = ("train", "unseen-concepts", "unseen-designs")

# Artwork sub-group -> a common noun in WordNet; the longest key that starts the sub-group wins.
NOUNS = {
    "": "device",
    "animal": "animal", "cat-face": "animal", "monkey-face": "animal",
    "face-": "creature", "person-fantasy": "creature", "body-parts": "organ", "person-symbol": "organ",
    "plant": "plant", "food": "food", "drink": "drink", "dishware": "tool",
    "place": "building", "transport": "vehicle", "sky": "weather", "heart": "decoration",
    "event": "decoration", "award": "decoration", "other-object": "decoration",
    "sport": "toy", "game": "toy", "arts": "tool", "tool": "tool", "writing": "tool", "lock": "tool",
    "clothing": "clothing", "music": "instrument", "sound": "instrument", "time": "instrument",
    "science": "instrument", "medical": "instrument", "household": "furniture",
    "book": "document", "mail": "document", "money": "document", "office": "document",
}  # fmt: skip


@dataclass(frozen=True)
class Cutout:
    """One piece of artwork: a concept drawn in one design."""

    name: str  # of the concept: "squirrel"
    noun: str  # of its group: "animal"
    design: str  # the emoji or icon set: "noto"
    split: str  # one of SPLITS
    licence: str
    colour: tuple[float, float, float]  # the dominant one, RGB in [0, 1]
    image: bytes  # encoded RGBA


@dataclass(frozen=True)
class World:
    """Artwork and backdrops; images stay encoded until they are rendered."""

    cutouts: tuple[Cutout, ...]
    backdrops: dict[str, tuple[bytes, ...]]  # scene ("on the beach") -> encoded images

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """The scenes, in the order of the table."""
        return tuple(self.backdrops)

    def of_split(self, split: str) -> list[int]:
        """The indices of the cut-outs of a split; raises TamingError if there are none."""
        indices = [i for i, cutout in enumerate(self.cutouts) if cutout.split == split]
        if not indices:
            raise TamingError(f"No artwork is in the split '{split}'. Use {', '.join(SPLITS)}.")
        return indices


@dataclass(frozen=True)
class Pictures:
    """The decoded artwork of a world, on the device that renders it."""

    cutouts: UInt8[Tensor, "cutouts 4 side side"]
    backdrops: UInt8[Tensor, "pictures 3 across across"]
    first: dict[str, int]  # scene -> index of its first backdrop


def group_noun(sub: str) -> str:
    """The common noun for an artwork sub-group.

    >>> group_noun("animal-mammal"), group_noun("musical-instrument"), group_noun("computer")
    ('animal', 'instrument', 'device')
    """
    return NOUNS[max((key for key in NOUNS if sub.startswith(key)), key=len)]


def class_nouns() -> tuple[str, ...]:
    """The detector's classes, in alphabetical order."""
    return tuple(sorted(set(NOUNS.values())))


def load_world(folder: Path = MINI / "world") -> World:
    """Read cutouts.parquet and scenes.parquet; raises TamingError if one is missing."""
    missing = [n for n in ("cutouts.parquet", "scenes.parquet") if not (folder / n).is_file()]
    if missing:
        raise TamingError(f"{folder} has no {missing[0]}. Name the folder of the mini world's tables.")
    art = _read_rows(folder / "cutouts.parquet")
    backdrops: dict[str, tuple[bytes, ...]] = {}
    for view in _read_rows(folder / "scenes.parquet", ["scene", "image"]):
        backdrops[view["scene"]] = (*backdrops.get(view["scene"], ()), view["image"]["bytes"])
    return World(
        tuple(
            Cutout(a["name"], group_noun(a["sub"]), a["design"], a["split"], a["licence"], tuple(a["colour"]),
                   a["image"]["bytes"])
            for a in art
        ),
        backdrops,
    )  # fmt: skip


def load_pictures(world: World, device: str | torch.device = "cpu") -> Pictures:
    """Decode every image once; about 300 MB."""
    flat = [view for views in world.backdrops.values() for view in views]
    counts = np.cumsum([0, *map(len, world.backdrops.values())])
    return Pictures(
        decode_images([c.image for c in world.cutouts], "RGBA").to(device),
        decode_images(flat, "RGB").to(device),
        dict(zip(world.backdrops, counts[:-1].tolist(), strict=True)),
    )


def decode_images(images: Sequence[bytes], mode: str) -> UInt8[Tensor, "n channels height width"]:
    """Decode images of one size."""

    def decode(data: bytes) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data)).convert(mode))

    with ThreadPoolExecutor() as threads:  # the decoders release the interpreter lock
        return torch.as_tensor(np.stack(list(threads.map(decode, images)))).permute(0, 3, 1, 2).contiguous()


def licences(folder: Path = MINI / "world") -> dict[str, str]:
    """Design or scene -> the licence of its images by the tables; for the metadata of rendered photos."""
    art = _read_rows(folder / "cutouts.parquet", ["design", "licence"])
    scenes = _read_rows(folder / "scenes.parquet", ["scene", "licence"])
    by_source: dict[str, set[str]] = {}
    for key, licence in [(a["design"], a["licence"]) for a in art] + [(s["scene"], s["licence"]) for s in scenes]:
        by_source.setdefault(key, set()).add(licence)
    return {key: " AND ".join(sorted(names)) for key, names in by_source.items()}


def _read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    return cast(Any, pq).read_table(path, columns=columns).to_pylist()
