"""Batches with hard negatives for CLIP: photos with captions, and which captions match which photos."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from pipelines.mini.stage_params import TrainingParams
from taming_core.bases.family import token_ids
from taming_core.language.placeholder import OBJECT
from taming_core.world.artwork import World
from taming_core.world.plan import Chances, Plan, generator, plan, plan_of, views_at
from taming_core.world.wording import scene_wordings

SAME_COLOUR = 0.1  # largest difference per channel of two colours of one cut-out that count as the same


class BatchParams(TrainingParams):
    """Composition of a batch."""

    chances: Chances  # at the end of training; views are easier at first
    recoloured: float  # share of photos that show the object of the previous photo in another colour
    other_design: float  # share that show its concept in another design
    object_captions: float  # share of captions with the placeholder `<object>`
    workers: int  # processes that prefetch batches
    size: PositiveInt  # side of a photo in pixels


@dataclass(frozen=True)
class Batch:
    """Photos with captions, and their facts as numbers: style, objects, scene; -1 where a caption leaves one out."""

    plans: list[Plan]
    captions: list[str]
    ids: NDArray[np.int64]  # (n, length), of the captions
    photo_facts: NDArray[np.int64]  # (n, 3)
    caption_facts: NDArray[np.int64]  # (n, 3)
    identities: NDArray[np.float64]  # (n, 4): cut-out and dominant colour of the first object


class ClipDataset(Dataset[Batch]):
    """Item `step` is the batch of that step, so that workers can prefetch."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerBase, p: BatchParams) -> None:
        self.world, self.tokenizer, self.p = world, tokenizer, p
        self.candidates = world.of_split("train")
        self.designs = designs_of(world, self.candidates)

    def __len__(self) -> int:
        return self.p.steps

    def __getitem__(self, step: int) -> Batch:
        p, plans, captions = self.p, list[Plan](), list[str]()
        chances = views_at(step / p.steps, p.chances)
        for number in range(step * p.batch_size, (step + 1) * p.batch_size):
            rng = generator(p.seed, "clip", number)
            plans.append(self._hard_negative(plans[-1], rng, chances) if plans else self._random(rng, chances))
            captions.append(plans[-1].object_caption if rng.random() < p.object_captions else plans[-1].caption)
        caption_facts = [facts_in(p, c) for p, c in zip(plans, captions, strict=True)]
        photos, texts = as_numbers([facts_of(p) for p in plans], caption_facts)
        identities = np.array([identity_of(self.world, p) for p in plans])
        return Batch(plans, captions, token_ids(self.tokenizer, captions).numpy(), photos, texts, identities)

    def _hard_negative(self, previous: Plan, rng: Generator, chances: Chances) -> Plan:
        """The same object in another colour, its concept in another design, or a random photo."""
        draw, cutout = rng.random(), previous.objects[0].cutout
        if draw < self.p.recoloured:
            return plan_of(self.world, (cutout,), rng, replace(chances, recolor=1.0))
        others = [other for other in self.designs[self.world.cutouts[cutout].name] if other != cutout]
        if others and draw < self.p.recoloured + self.p.other_design:
            return plan_of(self.world, (others[rng.integers(len(others))],), rng, chances)
        return self._random(rng, chances)

    def _random(self, rng: Generator, chances: Chances) -> Plan:
        return plan(self.world, self.candidates, rng, chances)


def designs_of(world: World, candidates: Sequence[int]) -> dict[str, list[int]]:
    """Concept -> its cut-outs among the candidates."""
    designs: dict[str, list[int]] = defaultdict(list)
    for i in candidates:
        designs[world.cutouts[i].name].append(i)
    return dict(designs)


def facts_of(p: Plan) -> tuple[str, str, str]:
    """Style, objects and scene of a photo, in words."""
    return p.style, " and ".join(t.words for t in p.objects), p.scene


def facts_in(p: Plan, caption: str) -> tuple[str, str, str]:
    """The facts of a photo that a caption states; a fact that it leaves out is empty.

    Size and place are not compared: photos that differ in nothing else are rare.
    """
    style, objects, scene = facts_of(p)
    if OBJECT in caption:
        objects = " and ".join([OBJECT, *(t.words for t in p.objects[1:])]) if len(p.objects) > 1 else ""
    return style, objects, scene if any(wording in caption for wording in scene_wordings(scene)) else ""


def as_numbers(
    photos: Sequence[tuple[str, ...]], captions: Sequence[tuple[str, ...]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Facts as integers that are equal where the texts are; -1 for an empty one."""
    known: dict[str, int] = {"": -1}
    both = [[known.setdefault(word, len(known)) for word in row] for row in [*photos, *captions]]
    return np.array(both[: len(photos)]), np.array(both[len(photos) :])


def identity_of(world: World, p: Plan) -> tuple[float, ...]:
    """Cut-out and dominant colour of the first object: equal for photos of one identity."""
    first = p.objects[0]
    colour = world.cutouts[first.cutout].colour
    return first.cutout, *(colour if first.colour is None else np.clip(first.colour @ [*colour, 1.0], 0, 1))


def caption_matches(
    photos: Int[Tensor, "photos 3"], captions: Int[Tensor, "captions 3"]
) -> Bool[Tensor, "photos captions"]:
    """Whether each caption is true of each photo, its own or another."""
    return ((captions[None] == photos[:, None]) | (captions[None] < 0)).all(-1)


def same_identity(identities: Float[Tensor, "n 4"]) -> Bool[Tensor, "n n"]:
    """Whether two photos show the same cut-out in colours that cannot be told apart; a grey object has no hue."""
    distance = (identities[:, None] - identities[None]).abs()
    return (distance[..., 0] == 0) & (distance[..., 1:].amax(-1) < SAME_COLOUR)
