"""Rendering of plans in batches, by the same code on CPU and GPU.

A photo's pixels do not depend on its batch. Lengths are relative to the photo, so that one plan looks the same at any
size.
"""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from taming_core.world.artwork import Pictures
from taming_core.world.plan import Placement, Plan, PlannedObject, Window
from taming_core.world.styles import box_blur, stylize

CPU_AT_ONCE = 8  # photos per batch; with larger tensors, new memory pages cost the CPU more than batching saves
SHADOW_CELLS = 32  # shadows are soft: they are drawn on a coarse grid and enlarged

Layers = Float[Tensor, "layers 4 size size"]  # premultiplied RGBA in [0, 1]


def draw(
    pictures: Pictures, plans: Sequence[Plan], size: int
) -> tuple[Float[Tensor, "n 3 size size"], tuple[Bool[Tensor, "_ size size"], ...]]:
    """The photos of plans, values in [0, 1], and the masks of the visible part of their objects."""
    at_once = CPU_AT_ONCE if pictures.cutouts.device.type == "cpu" else len(plans)
    drawn = [_draw(pictures, plans[i : i + at_once], size) for i in range(0, len(plans), at_once)]
    return torch.cat([images for images, _ in drawn]), tuple(m for _, masks in drawn for m in masks)


def _draw(
    pictures: Pictures, plans: Sequence[Plan], size: int
) -> tuple[Float[Tensor, "n 3 size size"], tuple[Bool[Tensor, "_ size size"], ...]]:
    planned = [t for p in plans for t in p.objects]
    layers = objects(pictures, planned, [t.placement for t in planned], size)
    counts = [len(p.objects) for p in plans]
    last = np.cumsum(counts) - 1
    first, second = layers[(last - counts + 1).tolist()], layers[last.tolist()]  # of a single object both are its layer
    images = backdrops(pictures, plans, size) * (1 - 0.45 * _shadow(torch.maximum(first, second)[:, 3:], size))
    images = first[:, :3] + images * (1 - first[:, 3:])
    pair = torch.tensor([count > 1 for count in counts], device=images.device)[:, None, None, None]
    images = torch.where(pair, second[:, :3] + images * (1 - second[:, 3:]), images)
    masks = tuple(_visible(photo[:, 3] > 0.5) for photo in torch.split(layers, counts))
    return apply_styles(images.clamp(0, 1), [p.style for p in plans]), masks


def references(pictures: Pictures, plans: Sequence[Plan], size: int) -> Float[Tensor, "n 4 size size"]:
    """The reference view of the first object of each plan, premultiplied RGBA in [0, 1]."""
    planned = [p.objects[0] for p in plans]
    return objects(pictures, planned, [t.reference for t in planned], size)


def composite_on_grey(layers: Layers) -> Float[Tensor, "layers 3 size size"]:
    """Premultiplied layers on mid-grey, as the object encoder and the judges see a subject."""
    return layers[:, :3] + 0.5 * (1 - layers[:, 3:])


def to_bytes(images: Float[Tensor, "n 3 size size"]) -> UInt8[Tensor, "n size size 3"]:
    """Images in [0, 1] as uint8, channels last."""
    return (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)


def apply_styles(images: Float[Tensor, "n 3 size size"], styles: Sequence[str]) -> Float[Tensor, "n 3 size size"]:
    """Apply to each image its style."""
    out = images.clone()
    for style in sorted(set(styles)):
        some = torch.tensor([i for i, s in enumerate(styles) if s == style], device=images.device)
        out[some] = stylize(images[some], style).clamp(0, 1)
    return out


def _visible(masks: Bool[Tensor, "objects height width"]) -> Bool[Tensor, "objects height width"]:
    above = masks.flip(0).cumsum(0).flip(0) - masks.long()  # later objects stand in front
    return masks & (above == 0)


def objects(pictures: Pictures, planned: Sequence[PlannedObject], placements: Sequence[Placement], size: int) -> Layers:
    """Each object in its placement, alone; rendered at twice the size and averaged, so that edges are smooth."""
    device = pictures.cutouts.device
    art = pictures.cutouts[[t.cutout for t in planned]].float() / 255
    rgb, alpha = art[:, :3], art[:, 3:]
    identity = np.eye(3, 4)
    maps = torch.tensor(np.stack([identity if t.colour is None else t.colour for t in planned]), dtype=torch.float32)
    m = maps.to(device)[..., None, None]
    # Channel by channel: a matrix product may round differently in another batch.
    mixed = [m[:, i, 0] * rgb[:, 0] + m[:, i, 1] * rgb[:, 1] + m[:, i, 2] * rgb[:, 2] + m[:, i, 3] for i in range(3)]
    p = _columns(placements, device)
    side = torch.linspace(-1, 1, art.shape[-1], device=device)
    light = p["light"] * (1 - p["shade"] * (side[:, None] + side) / 2)  # from the upper left
    lit = (torch.stack(mixed, 1).clamp(0, 1) * light[:, None]).clamp(0, 1)
    premultiplied = torch.cat([lit * alpha, alpha], 1)
    fine = F.grid_sample(premultiplied, _grid(p, 2 * size, device), mode="bilinear", align_corners=False)
    return F.avg_pool2d(fine, 2)


def _columns(rows: Sequence[Placement] | Sequence[Window], device: torch.device) -> dict[str, Float[Tensor, "n 1 1"]]:
    """The fields of placements or windows as tensors by name."""
    names = tuple(type(rows[0]).__dataclass_fields__)
    numbers = attrgetter(*names)  # `astuple` copies every number, which takes longer than all the rest
    table = torch.tensor([numbers(row) for row in rows], dtype=torch.float32).to(device)
    return {name: table[:, i, None, None] for i, name in enumerate(names)}


def _grid(p: dict[str, Tensor], size: int, device: torch.device) -> Float[Tensor, "n size size 2"]:
    """The artwork coordinates of each pixel of the photo: shift, scale, rotate, stretch, then perspective."""
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    y, x = (axis[:, None] - p["y"]) / p["scale"], (axis[None, :] - p["x"]) / p["scale"]
    cos, sin = p["rotation"].cos(), p["rotation"].sin()
    across, down = (cos * x + sin * y) * p["aspect"], (cos * y - sin * x) / p["aspect"]
    depth = 1 + p["tilt_x"] * across + p["tilt_y"] * down
    return torch.stack([across / depth * p["mirror"], down / depth], -1)


def backdrops(pictures: Pictures, plans: Sequence[Plan], size: int) -> Float[Tensor, "n 3 size size"]:
    """The visible part of each plan's backdrop."""
    device = pictures.backdrops.device
    views = pictures.backdrops[[pictures.first[p.scene] + p.window.picture for p in plans]].float() / 255
    w = _columns([p.window for p in plans], device)
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    x = (axis[None, :] * w["zoom"] * w["mirror"] + w["x"] * (1 - w["zoom"])).expand(-1, size, -1)
    y = (axis[:, None] * w["zoom"] + w["y"] * (1 - w["zoom"])).expand(-1, -1, size)
    visible = F.grid_sample(views, torch.stack([x, y], -1), padding_mode="reflection", align_corners=False)
    return (visible * w["light"][..., None]).clamp(0, 1)


def _shadow(alpha: Float[Tensor, "n 1 size size"], size: int) -> Float[Tensor, "n 1 size size"]:
    coarse = box_blur(F.interpolate(alpha, size=(SHADOW_CELLS, SHADOW_CELLS), mode="area"), 7, mode="constant")
    fallen = F.pad(coarse, (1, -1, 2, -2))  # light comes from the upper left
    return F.interpolate(fallen, size=(size, size), mode="bilinear")
