"""Photos of the mini world with their ground truth: a pure function of (seed, split, photo number, size)."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from torch import Tensor

from taming_core.world.artwork import Pictures, World
from taming_core.world.plan import Chances, Plan, generator, plan
from taming_core.world.render import draw, to_bytes


@dataclass(frozen=True)
class Subject:
    """One object of a photo."""

    name: str
    noun: str
    design: str
    words: str  # what `<object>` replaces in the caption: "blue squirrel"
    cutout: int  # index in `World.cutouts`
    box_xyxy: tuple[int, int, int, int]  # pixels, half-open, around the visible part


@dataclass(frozen=True)
class Photos:
    """A rendered batch."""

    image: UInt8[Tensor, "n height width 3"]
    masks: tuple[Bool[Tensor, "_ height width"], ...]  # visible part of each object (objects, height, width), per photo
    objects: tuple[tuple[Subject, ...], ...]
    plans: tuple[Plan, ...]


def plans(
    world: World, seed: int, index: int, count: int, split: str = "train", chances: Chances | None = None
) -> list[Plan]:
    """The plans number `index * count` up to `(index + 1) * count`; raises TamingError if the split has no artwork."""
    candidates = world.of_split(split)
    numbers = range(index * count, (index + 1) * count)
    return [plan(world, candidates, generator(seed, split, number), chances or Chances()) for number in numbers]


def render(
    world: World, pictures: Pictures, seed: int, index: int, count: int, size: int, split: str = "train",
    chances: Chances | None = None,
) -> Photos:  # fmt: skip
    """Photos number `index * count` up to `(index + 1) * count`, `size` pixels wide and high, on the CPU.

    A photo does not depend on `count`. Raises TamingError if no artwork is in `split`.
    """
    return photos_of(world, pictures, plans(world, seed, index, count, split, chances), size)


def photos_of(world: World, pictures: Pictures, plans: Sequence[Plan], size: int) -> Photos:
    """Render plans, `size` pixels wide and high; the results are on the CPU."""
    images, masks = draw(pictures, plans, size)
    masks = tuple(m.cpu() for m in masks)
    subjects = tuple(_subjects(world, p, m) for p, m in zip(plans, masks, strict=True))
    return Photos(to_bytes(images).cpu(), masks, subjects, tuple(plans))


def _subjects(world: World, p: Plan, masks: Bool[Tensor, "objects height width"]) -> tuple[Subject, ...]:
    return tuple(
        Subject(art.name, art.noun, art.design, planned.words, planned.cutout, box_of(mask))
        for planned, mask in zip(p.objects, masks, strict=True)
        for art in [world.cutouts[planned.cutout]]
    )


def box_of(mask: Bool[Tensor, "height width"]) -> tuple[int, int, int, int]:
    """The half-open box x0, y0, x1, y1 around the True pixels, all zero if there are none."""
    if not mask.any():
        return 0, 0, 0, 0
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
