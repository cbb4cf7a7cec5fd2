"""The mini world: emoji artwork put into photographed and painted scenes, with exact captions, boxes and masks.

A photo is a pure function of (seed, split, photo number, size): `plan` draws every number, the rest only renders.
Everything is measured in the photo's own frame, so one plan looks alike at any size.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.seeds import seed_for
from taming_core.world_plan import Chances, Cutout, Placement, Plan, World, article, plan
from taming_core.world_styles import box_blur, stylize

__all__ = [
    "Chances",
    "Photos",
    "Subject",
    "World",
    "article",
    "box_of",
    "class_nouns",
    "group_noun",
    "load_world",
    "render",
]

SHADOW_CELLS = 32  # shadows are soft: they are drawn on a coarse grid and enlarged

# Artwork sub-group -> a plain noun that WordNet knows; the longest key that starts the sub-group wins.
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
class Subject:
    """One object of a photo."""

    name: str
    noun: str
    design: str
    phrase: str  # its words in the caption, without the article: "small recolored squirrel"
    cutout: int  # index in `World.cutouts`
    box_xyxy: tuple[int, int, int, int]  # pixels, half-open, around the visible part


@dataclass(frozen=True)
class Photos:
    """A rendered batch."""

    image: UInt8[Tensor, "n height width 3"]
    masks: tuple[Bool[Tensor, "_ height width"], ...]  # visible part of each object (objects, height, width), per photo
    objects: tuple[tuple[Subject, ...], ...]
    scene: tuple[str, ...]
    style: tuple[str, ...]  # "a photo of"
    caption: tuple[str, ...]


def group_noun(sub: str) -> str:
    """The plain noun for an artwork sub-group.

    >>> group_noun("animal-mammal"), group_noun("musical-instrument"), group_noun("computer")
    ('animal', 'instrument', 'device')
    """
    return NOUNS[max((key for key in NOUNS if sub.startswith(key)), key=len)]


def class_nouns() -> tuple[str, ...]:
    """The detector's classes, in alphabetical order."""
    return tuple(sorted(set(NOUNS.values())))


def load_world(folder: Path) -> World:
    """Read cutouts.parquet, scenes.parquet and names.json; raises TamingError if one is missing."""
    missing = [n for n in ("cutouts.parquet", "scenes.parquet", "names.json") if not (folder / n).is_file()]
    if missing:
        raise TamingError(f"{folder} has no {missing[0]}. Point to the folder that holds the mini world's tables.")
    art = pq.read_table(folder / "cutouts.parquet", columns=["name", "sub", "design", "split", "image"]).to_pylist()
    views = pq.read_table(folder / "scenes.parquet").to_pylist()
    scenes = tuple(json.loads((folder / "names.json").read_text())["scenes"])
    return World(
        cutouts=tuple(
            Cutout(a["name"], group_noun(a["sub"]), a["design"], a["split"], a["image"]["bytes"]) for a in art
        ),
        scenes=scenes,
        backdrops={s: tuple(v["image"]["bytes"] for v in views if v["scene"] == s) for s in scenes},
    )


def render(
    world: World, seed: int, index: int, count: int, size: int, split: str = "train", chances: Chances | None = None
) -> Photos:
    """Photos number `index * count` up to `(index + 1) * count`, `size` pixels wide and high.

    A photo does not depend on `count`. Raises TamingError if no artwork is in `split`.
    """
    candidates = [i for i, c in enumerate(world.cutouts) if c.split == split]
    if not candidates:
        raise TamingError(f"No artwork is in the split '{split}'. Use train, unseen_concept or unseen_identity.")
    numbers = range(index * count, (index + 1) * count)
    plans = [plan(world, candidates, _rng(seed, split, number), chances or Chances()) for number in numbers]
    drawn = [draw(world, p, size) for p in plans]
    return Photos(
        image=torch.stack([image for image, _ in drawn]),
        masks=tuple(masks for _, masks in drawn),
        objects=tuple(_subjects(world, p, masks) for p, (_, masks) in zip(plans, drawn, strict=True)),
        scene=tuple(p.scene for p in plans),
        style=tuple(p.style for p in plans),
        caption=tuple(p.caption for p in plans),
    )


def _rng(seed: int, split: str, number: int) -> Generator:
    return np.random.default_rng(seed_for(seed, f"world/{split}", number))


def draw(
    world: World, p: Plan, size: int
) -> tuple[UInt8[Tensor, "height width 3"], Bool[Tensor, "objects height width"]]:
    """The photo of a plan and the visible part of each of its objects."""
    parts = zip(p.cutouts, p.placements, p.colours, strict=True)
    layers = [_object(world.cutouts[i].png, placement, colour, size) for i, placement, colour in parts]
    image = _backdrop(world.backdrops[p.scene][p.backdrop], p.window, size)
    image = image * (1 - 0.45 * _shadow(torch.stack([layer[:, 3:] for layer in layers]).amax(0), size))
    for layer in layers:
        image = layer[:, :3] + image * (1 - layer[:, 3:])  # premultiplied alpha
    image = stylize(image.clamp(0, 1), p.style).clamp(0, 1)
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8), _visible(torch.cat(layers)[:, 3] > 0.5)


def _visible(masks: Bool[Tensor, "objects height width"]) -> Bool[Tensor, "objects height width"]:
    above = masks.flip(0).cumsum(0).flip(0) - masks.long()  # later objects stand in front
    return masks & (above == 0)


def _decode(data: bytes, mode: str) -> Float[Tensor, "1 channels height width"]:
    pixels = np.array(Image.open(io.BytesIO(data)).convert(mode))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _object(
    png: bytes, p: Placement, colour: Float[np.ndarray, "3 4"] | None, size: int
) -> Float[Tensor, "1 4 size size"]:
    art = _decode(png, "RGBA")
    rgb, alpha = art[:, :3], art[:, 3:]
    if colour is not None:
        affine = torch.from_numpy(colour).float()
        rgb = torch.einsum("ij,bjhw->bihw", affine[:, :3], rgb) + affine[:, 3, None, None]
    premultiplied = torch.cat([(rgb.clamp(0, 1) * p.light).clamp(0, 1) * alpha, alpha], 1)
    fine = F.grid_sample(premultiplied, _grid(p, 2 * size), mode="bilinear", align_corners=False)
    return F.avg_pool2d(fine, 2)


def _grid(p: Placement, size: int) -> Float[Tensor, "1 size size 2"]:
    """Where each pixel of the photo looks into the artwork: shift, scale, rotate, stretch, then perspective."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid((axis - p.y) / p.scale, (axis - p.x) / p.scale, indexing="ij")
    cos, sin = float(np.cos(p.rotation)), float(np.sin(p.rotation))
    across, down = (cos * x + sin * y) * p.aspect, (cos * y - sin * x) / p.aspect
    depth = 1 + p.tilt_x * across + p.tilt_y * down
    return torch.stack([across / depth * p.flip, down / depth], -1)[None]


def _backdrop(
    jpeg: bytes, window: tuple[float, float, float, float, float], size: int
) -> Float[Tensor, "1 3 size size"]:
    zoom, x, y, flip, light = window
    affine = torch.tensor([[[zoom * flip, 0, x * (1 - zoom)], [0, zoom, y * (1 - zoom)]]], dtype=torch.float32)
    grid = F.affine_grid(affine, [1, 3, size, size], align_corners=False)
    picture = F.grid_sample(_decode(jpeg, "RGB"), grid, padding_mode="reflection", align_corners=False)
    return (picture * light).clamp(0, 1)


def _shadow(alpha: Float[Tensor, "1 1 size size"], size: int) -> Float[Tensor, "1 1 size size"]:
    coarse = box_blur(F.interpolate(alpha, size=(SHADOW_CELLS, SHADOW_CELLS), mode="area"), 7, mode="constant")
    fallen = F.pad(coarse, (1, -1, 2, -2))  # light comes from the upper left
    return F.interpolate(fallen, size=(size, size), mode="bilinear")


def _subjects(world: World, p: Plan, masks: Bool[Tensor, "objects height width"]) -> tuple[Subject, ...]:
    return tuple(
        Subject(cut.name, cut.noun, cut.design, phrase, i, box_of(mask))
        for i, phrase, mask in zip(p.cutouts, p.phrases, masks, strict=True)
        for cut in [world.cutouts[i]]
    )


def box_of(mask: Bool[Tensor, "height width"]) -> tuple[int, int, int, int]:
    """The half-open box x0, y0, x1, y1 around the True pixels, all zero if there are none."""
    if not mask.any():
        return 0, 0, 0, 0
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
