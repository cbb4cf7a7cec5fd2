"""Cut-outs as a segmenter finds them in generated images: artwork, rendered, degraded and cut out again."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pipelines.mini.corruptions import Art
from pipelines.mini.judge_networks import ViewParams
from taming_core.evaluation.judges import FILL, SIDE
from taming_core.world.artwork import Pictures, World
from taming_core.world.plan import PlannedObject, plan_of
from taming_core.world.render import CPU_AT_ONCE, objects

Pixels = Float[Tensor, "n 3 side side"]
BLOCK = 8  # side of a JPEG block in pixels


def premultiplied(pictures: Pictures, cutouts: Sequence[int]) -> Art:
    """Cut-outs as premultiplied RGBA in [0, 1]."""
    art = pictures.cutouts[list(cutouts)].float() / 255
    return torch.cat([art[:, :3] * art[:, 3:], art[:, 3:]], 1)


def to_uint8(art: Art) -> Tensor:
    """RGBA as uint8, not premultiplied, as `Pictures` stores it."""
    alpha = art[:, 3:]
    straight = torch.cat([art[:, :3] / alpha.clamp(min=1e-3), alpha], 1)
    return (straight.clamp(0, 1) * 255).round().to(torch.uint8)


def photographed(world: World, pictures: Pictures, art: Art, view: ViewParams, rng: Generator) -> Art:
    """Render each object into a photo with decoder artefacts, and cut it out again with an imperfect mask."""
    source = replace(pictures, cutouts=to_uint8(art))
    placed = [replace(_placement(world, view, rng), cutout=number) for number in range(len(art))]
    layers = torch.cat([
        objects(source, some, [item.placement for item in some], view.size)
        for some in (placed[i : i + CPU_AT_ONCE] for i in range(0, len(placed), CPU_AT_ONCE))
    ])  # fmt: skip
    images = layers[:, :3] + backgrounds(len(art), view.size, rng).to(layers) * (1 - layers[:, 3:])
    return cropped(degraded(images, rng), noisy_masks(layers[:, 3], view.hole_chance, rng))


def _placement(world: World, view: ViewParams, rng: Generator) -> PlannedObject:
    """A planned object, of which only the placement is used."""
    return plan_of(world, [0], rng, view.chances(), [None]).objects[0]


def backgrounds(count: int, size: int, rng: Generator) -> Pixels:
    """Smooth random colours; only a rim of the background remains around a cut-out."""
    patches = torch.from_numpy(rng.uniform(0, 1, (count, 3, 3, 3))).float()
    return F.interpolate(patches, size=(size, size), mode="bilinear")


def degraded(images: Pixels, rng: Generator) -> Pixels:
    """Images in [0, 1] with decoder artefacts: some blurred, some with JPEG blocks, all with a colour cast."""
    cast = torch.from_numpy(rng.normal(1, 0.03, (len(images), 3, 1, 1))).to(images)
    images = images * cast
    blurred, blocky = (torch.from_numpy(np.flatnonzero(rng.random(len(images)) < 0.4)) for _ in range(2))
    images[blurred] = _blurred(images[blurred], rng)
    images[blocky] = _quantized(images[blocky], _per_image(images, rng.uniform(0.01, 0.16, len(blocky))))
    return images.clamp(0, 1)


def _blurred(images: Pixels, rng: Generator) -> Pixels:
    """Downsample and upsample."""
    side = images.shape[-1]
    small = F.interpolate(images, size=round(side * rng.uniform(0.5, 0.9)), mode="bilinear", antialias=True)
    return F.interpolate(small, size=side, mode="bilinear")


def _quantized(images: Pixels, step: Float[Tensor, "n 1 1 1"]) -> Pixels:
    """Quantize the DCT of 8x8 blocks, coarser at higher frequencies, as JPEG does."""
    basis = _dct_basis().to(images)
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // BLOCK, BLOCK, w // BLOCK, BLOCK).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T
    order = torch.arange(BLOCK).to(images)
    steps = (step * (0.3 + (order[:, None] + order) / BLOCK))[:, :, None, None].clamp(min=1e-4)
    output = basis.T @ (torch.round(coefficients / steps) * steps) @ basis
    return output.transpose(3, 4).reshape(n, c, h, w)


def _dct_basis() -> Float[Tensor, "block block"]:
    """The orthonormal discrete cosine transform."""
    k, x = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    rows = torch.cos(torch.pi * k * (2 * x + 1) / (2 * BLOCK)) * (2 / BLOCK) ** 0.5
    return torch.where(k == 0, rows / 2**0.5, rows)


def noisy_masks(
    alpha: Float[Tensor, "n side side"], hole_chance: float, rng: Generator
) -> Float[Tensor, "n side side"]:
    """Masks with the errors of a segmenter: displaced edges, too wide or too narrow, some with a hole."""
    n, side, _ = alpha.shape
    soft = F.interpolate(F.interpolate(alpha[:, None], scale_factor=0.25, mode="area"), size=side, mode="bilinear")
    shift = _smooth_noise(rng, n, 12, side) * _per_image(alpha, rng.uniform(0, 0.2, n))
    edge = _per_image(alpha, rng.uniform(0.35, 0.65, n)) - shift
    noise = _smooth_noise(rng, n, 8, side)
    threshold = np.where(rng.random(n) < hole_chance, rng.uniform(0.75, 0.9, n), 2.0)
    holes = noise > _per_image(alpha, threshold)
    masks = ((0.5 * (soft + alpha[:, None]) > edge) & ~holes)[:, 0]
    lost = masks.sum((1, 2)) < 0.5 * (alpha > 0.5).sum((1, 2))
    return torch.where(lost[:, None, None], alpha > 0.5, masks).float()  # a thin object may lose too much


def _smooth_noise(rng: Generator, count: int, cells: int, side: int) -> Float[Tensor, "n 1 side side"]:
    coarse = torch.from_numpy(rng.uniform(-1, 1, (count, 1, cells, cells))).float()
    return F.interpolate(coarse, size=(side, side), mode="bilinear")


def cropped(images: Pixels, masks: Float[Tensor, "n side side"]) -> Art:
    """Crop each masked object so that its longer side is FILL of SIDE; as `objects.cutout`, in a batch."""
    side = images.shape[-1]
    (x0, x1), (y0, y1) = _extent(masks.amax(1)), _extent(masks.amax(2))
    half_side = torch.maximum(x1 - x0, y1 - y0) / FILL / side
    axis = (torch.arange(SIDE, device=images.device) + 0.5) / SIDE * 2 - 1
    x, y = (((a + b) / side - 1)[:, None] + half_side[:, None] * axis for a, b in ((x0, x1), (y0, y1)))
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    return F.grid_sample(torch.cat([images * masks[:, None], masks[:, None]], 1), grid, align_corners=False)


def _extent(profile: Float[Tensor, "n side"]) -> tuple[Tensor, Tensor]:
    """The first nonzero position, and the one after the last."""
    nonzero = (profile > 0).float()
    return nonzero.argmax(1).float(), profile.shape[1] - nonzero.flip(1).argmax(1).float()


def _per_image(like: Tensor, values: NDArray[np.floating]) -> Float[Tensor, "n 1 1 1"]:
    return torch.from_numpy(values).to(like)[:, None, None, None]
