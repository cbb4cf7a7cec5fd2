"""Training batches of the judges: two views of each object, with corrupted copies as hard negatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy.random import Generator
from torch import Tensor

from pipelines.mini.corruptions import KINDS, VISIBLE, Art, corrupt, difference, recolor, warped
from pipelines.mini.judge_networks import LenientParams, StrictParams
from pipelines.mini.judge_photos import Pixels, photographed, premultiplied
from pipelines.mini.world_data import PlanDataset
from taming_core.evaluation.judges import SIDE
from taming_core.world.artwork import Pictures, World
from taming_core.world.plan import Chances, Colour, generator, plan_of
from taming_core.world.render import composite_on_grey, draw, references

Designs = dict[str, list[int]]  # concept -> its cut-outs
ViewsAt = Callable[[int], tuple[Pixels, Pixels]]  # step -> two views of each object, in [-1, 1]
RECOLORED = Chances(recolor=1.0)


@dataclass(frozen=True)
class Sample:
    """One object of a batch, or a corrupted copy of it."""

    cutout: int
    donor: int
    kind: str  # one of KINDS, or empty for the object itself
    colour: Colour | None


def strict_views(world: World, pictures: Pictures, p: StrictParams) -> ViewsAt:
    """Cut-outs of objects and of corrupted copies; a copy without a visible difference is warped instead."""
    designs = designs_of(world, world.of_split("train"))

    def views_at(step: int) -> tuple[Pixels, Pixels]:
        rng = generator(p.seed, "strict_judge", step)
        samples = samples_of(world, designs, rng, p)
        art, visible = artwork_of(pictures, samples, rng)
        unchanged = ~visible.cpu() & torch.tensor([bool(s.kind) for s in samples])
        if unchanged.any():
            art[unchanged] = warped(art[unchanged], rng)
        art = mirror_half(art, rng)
        first, second = (composite_on_grey(photographed(world, pictures, art, view, rng)) * 2 - 1 for view in p.views)
        return first, second

    return views_at


def lenient_views(world: World, pictures: Pictures, p: LenientParams) -> ViewsAt:
    """Whole photos, and the reference views of their first objects."""
    batches = PlanDataset(world, p, lambda _: Chances(recolor=p.recolor, style=p.style))

    def views_at(step: int) -> tuple[Pixels, Pixels]:
        plans = batches[step]
        images, _ = draw(pictures, plans, SIDE)
        return images * 2 - 1, composite_on_grey(references(pictures, plans, SIDE)) * 2 - 1

    return views_at


def mirror_half(art: Art, rng: Generator) -> Art:
    """Mirror a random half of the objects, in place."""
    flipped = torch.from_numpy(rng.random(len(art)) < 0.5)
    art[flipped] = art[flipped].flip(-1)
    return art


def samples_of(world: World, designs: Designs, rng: Generator, p: StrictParams) -> list[Sample]:
    """Objects of different concepts, each followed by its corrupted copies."""
    groups = p.batch_size // (1 + p.corrupted)
    names = rng.choice(np.array(sorted(designs)), groups, replace=groups > len(designs))
    return [sample for name in names for sample in _group(world, designs, name, rng, p)]


def _group(world: World, designs: Designs, name: str, rng: Generator, p: StrictParams) -> list[Sample]:
    cutout = int(rng.choice(designs[name]))
    colour = recolouring(world, cutout, rng) if rng.random() < p.recolor else None
    weights = np.array([p.corruption_weights[kind] for kind in KINDS])
    kinds = rng.choice(KINDS, p.corrupted, replace=False, p=weights / weights.sum())
    copies = (corrupted_copy(world, designs, cutout, kind, colour, rng, p) for kind in kinds)
    return [Sample(cutout, cutout, "", colour), *copies]


def corrupted_copy(
    world: World, designs: Designs, cutout: int, kind: str, colour: Colour | None, rng: Generator, p: StrictParams
) -> Sample:
    """A corrupted copy of an object; its donor is another design of the concept, or any cut-out of another."""
    donors = [i for i in designs[world.cutouts[cutout].name] if i != cutout]
    if not donors or (kind != "redesigned" and rng.random() >= p.same_concept):
        donors = designs[str(rng.choice(list(designs)))]
    colour = recolouring(world, cutout, rng) if kind == "recoloured" else colour
    return Sample(cutout, int(rng.choice(donors)), kind, colour)


def designs_of(world: World, candidates: Sequence[int]) -> Designs:
    """The candidates of each concept."""
    designs: Designs = {}
    for i in candidates:
        designs.setdefault(world.cutouts[i].name, []).append(i)
    return designs


def recolouring(world: World, cutout: int, rng: Generator) -> Colour | None:
    """A random colour matrix for an object, as photos of the world have it."""
    return plan_of(world, [cutout], rng, RECOLORED).objects[0].colour


def artwork_of(pictures: Pictures, samples: Sequence[Sample], rng: Generator) -> tuple[Art, Bool[Tensor, " n"]]:
    """The artwork of samples, and for each whether it differs visibly from the object it is a copy of."""
    art, donors = (premultiplied(pictures, [getattr(s, key) for s in samples]) for key in ("cutout", "donor"))
    recoloured = torch.tensor([s.kind == "recoloured" for s in samples], device=art.device)
    output, visible = corrupt(art, donors, ["" if s.kind == "recoloured" else s.kind for s in samples], rng)
    output = recolor(output, [s.colour for s in samples])
    return output, torch.where(recoloured, difference(art, output) > VISIBLE, visible)
