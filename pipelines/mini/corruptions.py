"""Corrupted copies of objects: bent, warped, stretched, mirrored, with parts, designs or colours of others.

They are the hard negatives of the strict judge: colours and parts alone do not tell them from the object.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.random import Generator
from torch import Tensor

from taming_core.world.plan import Colour

Art = Float[Tensor, "n 4 side side"]  # premultiplied RGBA in [0, 1]
Coordinates = Float[Tensor, "n side side"]  # x or y, in half sides from the centre
VISIBLE = 0.1  # smallest `difference` that a person notices
ZOOM_OUT = 1.25  # a corrupted copy is this much smaller, so that no deformation leaves the image


def corrupt(art: Art, donors: Art, kinds: Sequence[str], rng: Generator) -> tuple[Art, Bool[Tensor, " n"]]:
    """Corrupt each object by its kind; also returns whether that is visible, for a mirrored ball is the same ball.

    `donors` supply parts or the other design. An empty kind keeps the object.
    """
    out = art.clone()
    for kind in sorted(set(kinds) - {""}):
        some = torch.tensor([i for i, k in enumerate(kinds) if k == kind])
        out[some] = _of_kind(kind, art[some], donors[some], rng)
    smaller = _sample(art, *_coordinates(art))  # most kinds zoom out, which is no difference
    return out, torch.minimum(difference(art, out), difference(smaller, out)) > VISIBLE


def _of_kind(kind: str, art: Art, donors: Art, rng: Generator) -> Art:
    if kind == "redesigned":
        return donors
    return swapped(art, donors, rng) if kind == "swapped" else DEFORMATIONS[kind](art, rng)


def difference(one: Art, other: Art) -> Float[Tensor, " n"]:
    """How much two images differ at 16 x 16 pixels: 0 for equal ones, about 1 for unrelated ones."""
    first, second = (F.adaptive_avg_pool2d(art, 16) for art in (one, other))
    area = torch.maximum(first[:, 3], second[:, 3]).sum((1, 2)).clamp(min=1e-3)
    return (first - second).abs().mean(1).sum((1, 2)) / area


def bent(art: Art, rng: Generator) -> Art:
    """Bend along a random axis."""
    x, y = _coordinates(art)
    cos, sin = _angle(art, rng)
    along = x * cos + y * sin
    curve = _per_object(art, _random_sign(rng, len(art)) * rng.uniform(0.3, 0.5, len(art))) * (along.square() - 0.33)
    return _sample(art, x - sin * curve, y + cos * curve)


def warped(art: Art, rng: Generator, reach: float = 0.24) -> Art:
    """Deform by a smooth random displacement of up to `reach` half sides."""
    x, y = _coordinates(art)
    shift = torch.from_numpy(rng.uniform(-reach, reach, (len(art), 2, 6, 6))).to(x)
    shift = F.interpolate(shift, size=art.shape[-2:], mode="bicubic", align_corners=True)
    return _sample(art, x + shift[:, 0], y + shift[:, 1])


def stretched(art: Art, rng: Generator) -> Art:
    """Stretch along a random axis by a factor of 1.5 to 1.9."""
    x, y = _coordinates(art)
    cos, sin = _angle(art, rng)
    ratio = _per_object(art, np.exp(rng.uniform(0.4, 0.65, len(art))))
    along, across = (x * cos + y * sin) / ratio.sqrt(), (y * cos - x * sin) * ratio.sqrt()
    return _sample(art, along * cos - across * sin, along * sin + across * cos)


def mirrored(art: Art, rng: Generator) -> Art:
    """Replace one half by the mirror image of the other."""
    x, y = _coordinates(art)
    centre = _centre(art)[0] + _per_object(art, rng.uniform(-0.06, 0.06, len(art)))
    kept = _per_object(art, _random_sign(rng, len(art)))
    return _sample(art, centre + kept * (x - centre).abs(), y.expand_as(x))


def swapped(art: Art, donors: Art, rng: Generator) -> Art:
    """Replace a half or a quarter by the donor's."""
    x, y = _coordinates(art, zoom=1)
    across, down = _centre(art)
    right = (x - across) * _per_object(art, _random_sign(rng, len(art))) > 0
    below = (y - down) * _per_object(art, _random_sign(rng, len(art))) > 0
    which = _per_object(art, rng.integers(0, 3, len(art)))
    part = torch.where(which == 0, right, torch.where(which == 1, below, right & below))
    return torch.where(part[:, None], donors, art)


def recolor(art: Art, colours: Sequence[Colour | None]) -> Art:
    """Recolour each object by its colour matrix (3, 4), as `plan` draws them; None keeps its colours."""
    plain = np.eye(3, 4)
    maps = torch.from_numpy(np.stack([plain if c is None else c for c in colours])).to(art)
    alpha = art[:, 3:]
    mixed = torch.einsum("nij,njhw->nihw", maps[:, :, :3], art[:, :3]) + maps[:, :, 3, None, None] * alpha
    return torch.cat([torch.minimum(mixed.clamp(min=0), alpha), alpha], 1)


DEFORMATIONS: dict[str, Callable[[Art, Generator], Art]] = {
    "bent": bent, "warped": warped, "stretched": stretched, "mirrored": mirrored,
}  # fmt: skip
KINDS = (*DEFORMATIONS, "swapped", "redesigned", "recoloured")  # the last is done by `recolor`


def _coordinates(art: Art, zoom: float = ZOOM_OUT) -> tuple[Coordinates, Coordinates]:
    """Sampling coordinates x and y of each pixel, without a corruption."""
    axis = ((torch.arange(art.shape[-1], device=art.device) + 0.5) / art.shape[-1] * 2 - 1) * zoom
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x.expand(len(art), -1, -1), y.expand(len(art), -1, -1)


def _sample(art: Art, x: Coordinates, y: Coordinates) -> Art:
    return F.grid_sample(art, torch.stack([x, y], -1), mode="bilinear", align_corners=False)


def _centre(art: Art) -> tuple[Float[Tensor, "n 1 1"], Float[Tensor, "n 1 1"]]:
    """The centre of mass of each object, x and y."""
    x, y = _coordinates(art, zoom=1)
    mass = art[:, 3].sum((1, 2)).clamp(min=1e-3)
    across, down = ((axis * art[:, 3]).sum((1, 2)) / mass for axis in (x, y))
    return across[:, None, None], down[:, None, None]


def _angle(art: Art, rng: Generator) -> tuple[Tensor, Tensor]:
    angle = _per_object(art, rng.uniform(0, np.pi, len(art)))
    return angle.cos(), angle.sin()


def _random_sign(rng: Generator, count: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], count)


def _per_object(art: Art, values: np.ndarray) -> Float[Tensor, "n 1 1"]:
    return torch.from_numpy(values).to(art)[:, None, None]
