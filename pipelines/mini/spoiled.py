"""Things that are almost the thing: bent, warped, stretched, mirror blends, parts of others, other designs and colours.

A judge that must tell them from the thing itself cannot live on colours and parts alone.
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
Places = Float[Tensor, "n side side"]  # one coordinate, in half sides from the middle
VISIBLE = 0.1  # difference from which a stranger sees one
ROOM = 1.25  # a spoiled thing is drawn this much smaller, so that no bend leads out of the picture


def spoiled(art: Art, donors: Art, kinds: Sequence[str], rng: Generator) -> tuple[Art, Bool[Tensor, " n"]]:
    """Each thing spoiled in its own way, and whether it shows: a mirror blend of a ball is the same ball.

    `donors` lend parts, or stand for another design. An empty kind keeps the thing.
    """
    out = art.clone()
    for kind in sorted(set(kinds) - {""}):
        some = torch.tensor([i for i, k in enumerate(kinds) if k == kind])
        out[some] = _of_kind(kind, art[some], donors[some], rng)
    smaller = _seen_at(art, *_places(art))  # most kinds make room, which is no difference
    return out, torch.minimum(difference(art, out), difference(smaller, out)) > VISIBLE


def _of_kind(kind: str, art: Art, donors: Art, rng: Generator) -> Art:
    if kind == "redesigned":
        return donors
    return swapped(art, donors, rng) if kind == "swapped" else DEFORMATIONS[kind](art, rng)


def difference(one: Art, other: Art) -> Float[Tensor, " n"]:
    """How much two pictures differ when seen from afar: 0 is the same, about 1 has nothing in common."""
    coarse, against = (F.adaptive_avg_pool2d(art, 16) for art in (one, other))
    area = torch.maximum(coarse[:, 3], against[:, 3]).sum((1, 2)).clamp(min=1e-3)
    return (coarse - against).abs().mean(1).sum((1, 2)) / area


def bent(art: Art, rng: Generator) -> Art:
    """Curved like a banana, in any direction."""
    x, y = _places(art)
    cos, sin = _angle(art, rng)
    along = x * cos + y * sin
    curve = _numbers(art, _either(rng, len(art)) * rng.uniform(0.3, 0.5, len(art))) * (along.square() - 0.33)
    return _seen_at(art, x - sin * curve, y + cos * curve)


def warped(art: Art, rng: Generator, reach: float = 0.24) -> Art:
    """Pushed here and pulled there, by up to `reach`."""
    x, y = _places(art)
    push = torch.from_numpy(rng.uniform(-reach, reach, (len(art), 2, 6, 6))).to(x)
    push = F.interpolate(push, size=art.shape[-2:], mode="bicubic", align_corners=True)
    return _seen_at(art, x + push[:, 0], y + push[:, 1])


def stretched(art: Art, rng: Generator) -> Art:
    """Half as long again or more in some direction."""
    x, y = _places(art)
    cos, sin = _angle(art, rng)
    ratio = _numbers(art, np.exp(rng.uniform(0.4, 0.65, len(art))))
    along, across = (x * cos + y * sin) / ratio.sqrt(), (y * cos - x * sin) * ratio.sqrt()
    return _seen_at(art, along * cos - across * sin, along * sin + across * cos)


def mirrored(art: Art, rng: Generator) -> Art:
    """One half and its mirror image: the turkey with two heads."""
    x, y = _places(art)
    middle = _middle(art)[0] + _numbers(art, rng.uniform(-0.06, 0.06, len(art)))
    kept = _numbers(art, _either(rng, len(art)))
    return _seen_at(art, middle + kept * (x - middle).abs(), y.expand_as(x))


def swapped(art: Art, donors: Art, rng: Generator) -> Art:
    """A half or a quarter taken from the donor."""
    x, y = _places(art, room=1)
    across, down = _middle(art)
    right = (x - across) * _numbers(art, _either(rng, len(art))) > 0
    below = (y - down) * _numbers(art, _either(rng, len(art))) > 0
    which = _numbers(art, rng.integers(0, 3, len(art)))
    part = torch.where(which == 0, right, torch.where(which == 1, below, right & below))
    return torch.where(part[:, None], donors, art)


def coloured(art: Art, colours: Sequence[Colour | None]) -> Art:
    """Each thing in its colours, as `plan` draws them; None keeps its own."""
    plain = np.eye(3, 4)
    maps = torch.from_numpy(np.stack([plain if c is None else c for c in colours])).to(art)
    alpha = art[:, 3:]
    mixed = torch.einsum("nij,njhw->nihw", maps[:, :, :3], art[:, :3]) + maps[:, :, 3, None, None] * alpha
    return torch.cat([torch.minimum(mixed.clamp(min=0), alpha), alpha], 1)


DEFORMATIONS: dict[str, Callable[[Art, Generator], Art]] = {
    "bent": bent, "warped": warped, "stretched": stretched, "mirrored": mirrored,
}  # fmt: skip
KINDS = (*DEFORMATIONS, "swapped", "redesigned", "recoloured")  # the last is the work of `coloured`


def _places(art: Art, room: float = ROOM) -> tuple[Places, Places]:
    """Where each pixel looks, x and y, before anything is spoiled."""
    axis = ((torch.arange(art.shape[-1], device=art.device) + 0.5) / art.shape[-1] * 2 - 1) * room
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x.expand(len(art), -1, -1), y.expand(len(art), -1, -1)


def _seen_at(art: Art, x: Places, y: Places) -> Art:
    return F.grid_sample(art, torch.stack([x, y], -1), mode="bilinear", align_corners=False)


def _middle(art: Art) -> tuple[Float[Tensor, "n 1 1"], Float[Tensor, "n 1 1"]]:
    """The centre of mass of each thing, x and y."""
    x, y = _places(art, room=1)
    mass = art[:, 3].sum((1, 2)).clamp(min=1e-3)
    across, down = ((axis * art[:, 3]).sum((1, 2)) / mass for axis in (x, y))
    return across[:, None, None], down[:, None, None]


def _angle(art: Art, rng: Generator) -> tuple[Tensor, Tensor]:
    angle = _numbers(art, rng.uniform(0, np.pi, len(art)))
    return angle.cos(), angle.sin()


def _either(rng: Generator, count: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], count)


def _numbers(art: Art, values: np.ndarray) -> Float[Tensor, "n 1 1"]:
    return torch.from_numpy(values).to(art)[:, None, None]
