"""Batches that are hard to tell apart: photos with captions, near relatives side by side, and what is true of what."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import PositiveInt
from schooling import Lesson
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from taming_core.bases.family import token_ids
from taming_core.world.artwork import World
from taming_core.world.plan import Chances, Plan, generator, plan, plan_of, views_at
from taming_core.world.wording import OBJECT, scene_wordings

ALIKE = 0.1  # greatest difference per channel at which two colours of one cut-out may be one to the eye


class BatchParams(Lesson):
    """What a batch holds."""

    chances: Chances  # of the later trainings; views are easier at first
    recoloured: float  # share of photos that show the thing of the photo before in another colour
    other_design: float  # share that show its concept as somebody else drew it
    object_captions: float  # share of captions that say `<object>`
    workers: int  # processes that draw batches ahead
    size: PositiveInt  # pixels of a photo's side


@dataclass(frozen=True)
class Batch:
    """Photos with captions, and as numbers what they show and say: style, things, scene; -1 is not said."""

    plans: list[Plan]
    captions: list[str]
    ids: NDArray[np.int64]  # (n, length), of the captions' words
    shown: NDArray[np.int64]  # (n, 3)
    said: NDArray[np.int64]  # (n, 3)
    things: NDArray[np.float64]  # (n, 4): cut-out and telling colour of the first thing


class Batches(Dataset[Batch]):
    """Item `step` is the batch of that step, so that workers can draw ahead."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerBase, p: BatchParams) -> None:
        self.world, self.tokenizer, self.p = world, tokenizer, p
        self.candidates = world.of_split("train")
        self.kin = kin(world, self.candidates)

    def __len__(self) -> int:
        return self.p.steps

    def __getitem__(self, step: int) -> Batch:
        p, plans, captions = self.p, list[Plan](), list[str]()
        chances = views_at(step / p.steps, p.chances)
        for number in range(step * p.batch_size, (step + 1) * p.batch_size):
            rng = generator(p.seed, "clip", number)
            plans.append(self._relative(plans[-1], rng, chances) if plans else self._any(rng, chances))
            captions.append(plans[-1].object_caption if rng.random() < p.object_captions else plans[-1].caption)
        shown, said = numbered([facts(p) for p in plans], [claims(p, c) for p, c in zip(plans, captions, strict=True)])
        things = np.array([telling(self.world, p) for p in plans])
        return Batch(plans, captions, token_ids(self.tokenizer, captions).numpy(), shown, said, things)

    def _relative(self, before: Plan, rng: Generator, chances: Chances) -> Plan:
        """A photo of the same thing in another colour, of its concept in another design, or of anything."""
        lot, cutout = rng.random(), before.objects[0].cutout
        if lot < self.p.recoloured:
            return plan_of(self.world, (cutout,), rng, replace(chances, recolor=1.0))
        others = [other for other in self.kin[self.world.cutouts[cutout].name] if other != cutout]
        if others and lot < self.p.recoloured + self.p.other_design:
            return plan_of(self.world, (others[rng.integers(len(others))],), rng, chances)
        return self._any(rng, chances)

    def _any(self, rng: Generator, chances: Chances) -> Plan:
        return plan(self.world, self.candidates, rng, chances)


def kin(world: World, candidates: Sequence[int]) -> dict[str, list[int]]:
    """Concept -> its cut-outs among the candidates."""
    found: dict[str, list[int]] = defaultdict(list)
    for i in candidates:
        found[world.cutouts[i].name].append(i)
    return dict(found)


def facts(p: Plan) -> tuple[str, str, str]:
    """Style, things and scene of a photo, in words."""
    return p.style, " and ".join(t.words for t in p.objects), p.scene


def claims(p: Plan, caption: str) -> tuple[str, str, str]:
    """What of `facts` a caption says; a part that it leaves open is empty.

    Size and place are not asked: they tell apart photos that agree in all else, and such are rare.
    """
    style, things, scene = facts(p)
    if OBJECT in caption:
        things = " and ".join([OBJECT, *(t.words for t in p.objects[1:])]) if len(p.objects) > 1 else ""
    return style, things, scene if any(wording in caption for wording in scene_wordings(scene)) else ""


def numbered(
    shown: Sequence[tuple[str, ...]], said: Sequence[tuple[str, ...]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Words as numbers that are equal where the words are; -1 for none."""
    known: dict[str, int] = {"": -1}
    both = [[known.setdefault(word, len(known)) for word in row] for row in [*shown, *said]]
    return np.array(both[: len(shown)]), np.array(both[len(shown) :])


def telling(world: World, p: Plan) -> tuple[float, ...]:
    """Cut-out and telling colour of the first thing: the same for photos of one thing."""
    thing = p.objects[0]
    colour = world.cutouts[thing.cutout].colour
    return thing.cutout, *(colour if thing.colour is None else np.clip(thing.colour @ [*colour, 1.0], 0, 1))


def true_of(shown: Int[Tensor, "photos 3"], said: Int[Tensor, "captions 3"]) -> Bool[Tensor, "photos captions"]:
    """Whether a caption is true of a photo, its own or another."""
    return ((said[None] == shown[:, None]) | (said[None] < 0)).all(-1)


def same_thing(things: Float[Tensor, "n 4"]) -> Bool[Tensor, "n n"]:
    """Whether two photos may show one and the same thing: a grey thing looks alike in any hue."""
    apart = (things[:, None] - things[None]).abs()
    return (apart[..., 0] == 0) & (apart[..., 1:].amax(-1) < ALIKE)
