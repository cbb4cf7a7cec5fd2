"""What the scores of an evaluation can see: true photos of an object against other objects and corrupted copies.

Of each object one photo is the reference. A score that measures identity gives its other photo more than the same
photo with a corrupted object (two-alternative forced choice, as perceptual metrics are tested), and more than another
object in the very place of the reference, where the background speaks for the wrong one (NearID, arXiv 2604.01973).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation.corruptions import MaskedPhoto, corrupted_copies, transplanted
from taming_core.evaluation.intervals import Estimate, estimate_share
from taming_core.evaluation.pair_scores import PairScore
from taming_core.evaluation.protocol import REFERENCES, other_photos, rows_of_identities
from taming_core.language.class_groups import class_group
from taming_core.photos.masks import fit_mask, mask_box, window
from taming_core.seeds import seed_for
from taming_core.storage.paths import AnyPath
from taming_core.tables.row_images import open_mask, open_rgba
from taming_core.tables.rows import Rows, load_rows
from taming_core.tables.schema import Row

MAX_SIDE = 384  # pixels of a photo's side: no judge takes more
DECIMALS = 4  # of a score; equal ones are a tie, which is half a win
EXAMPLES = 6  # objects on the contact sheet

Relation = Literal["class", "class group", "any"]  # what an object has in common with the one it is taken for
Scores = Mapping[str, Mapping[str, float]]  # judge -> candidate -> likeness to the reference


class Comparison(NamedTuple):
    """Two candidates, of which the true one should be more like the reference than the wrong one."""

    key: str
    title: str  # of what is taken for the object
    wrong: str  # candidates of a `Trial`
    true: str = "true"


COMPARISONS = (
    Comparison("another_object", "another object", "another_object"),
    Comparison("another_in_place", "another object in the reference's place", "another_in_place"),
    Comparison("backgrounds_exchanged", "the same, with the true object on another background", "another_in_place",
               "moved"),
    Comparison("bent_slightly", "slightly bent copies", "bent_slightly"),
    Comparison("bent", "bent copies", "bent"),
    Comparison("bent_strongly", "strongly bent copies", "bent_strongly"),
    Comparison("blended", "copies blended with another object", "blended"),
    Comparison("part_swapped", "copies with a part of another object", "part_swapped"),
    Comparison("recoloured", "recoloured copies", "recoloured"),
    Comparison("mirrored", "mirrored copies", "mirrored"),
)  # fmt: skip


class Trial(NamedTuple):
    """A reference with its candidates: the `true` one, the same object `moved` to another photo, and the wrong ones."""

    identity: str
    donor: str  # the other object
    relation: Relation  # of both
    reference: MaskedPhoto
    candidates: Mapping[str, MaskedPhoto]


class ScoredTrial(NamedTuple):
    """The scores of a trial."""

    identity: str
    relation: Relation
    scores: Scores


class Outcome(NamedTuple):
    """How a judge did in a comparison."""

    win_rate: Estimate  # how often the true candidate has the higher score, over trials; interval over objects
    true: float  # mean scores
    wrong: float
    objects: int


@dataclass(frozen=True)
class JudgeCheck:
    """The data of a finished check."""

    split: str
    trials: Sequence[ScoredTrial]
    outcomes: Mapping[str, Mapping[str, Outcome]]  # judge -> key of a comparison that has trials
    examples: Sequence[tuple[Trial, Scores]]  # the first trial of the first objects


def check(folder: AnyPath, split: str, seed: int, scores: Mapping[str, PairScore]) -> JudgeCheck:
    """Check the scores on all objects of a split that have two photos or more.

    Args:
        folder: of the rows.
        split: of the objects.
        seed: of the corruptions.
        scores: how alike two photos are, by the judge's name.

    Raises:
        TamingError: fewer than two objects have two photos.
    """
    scored, examples = list[ScoredTrial](), list[tuple[Trial, Scores]]()
    for trials in trials_of_objects(load_rows(folder, split), seed):
        found = score_trials(trials, scores)
        scored += [ScoredTrial(t.identity, t.relation, s) for t, s in zip(trials, found, strict=True)]
        examples += [(trials[0], found[0])] if len(examples) < EXAMPLES else []
    if len({t.identity for t in scored}) < 2:
        raise TamingError(
            f"The split {split} has fewer than two objects with two photos each, and judges are checked on such. Add "
            f"photos, or raise materialize.{split}, and run `taming materialize` again."
        )
    return JudgeCheck(split, scored, {judge: outcomes(scored, judge) for judge in scores}, examples)


def trials_of_objects(rows: Rows, seed: int) -> Iterator[list[Trial]]:
    """The trials of each identity that has other photos, one for each of at most REFERENCES of them."""
    numbers, nouns = rows_of_identities(rows), rows.column("class")
    classes: dict[str, str | None] = {identity: nouns[found[0]] for identity, found in numbers.items()}
    for identity, found in numbers.items():
        seen = rows[found[0]]
        others = [photo for row in islice(other_photos(rows, seen), REFERENCES) if (photo := masked_photo(row))]
        reference, (donors, relation) = masked_photo(seen), donors_of(identity, classes)
        if reference is None or not others or not donors:
            continue
        trials = list[Trial]()
        for n, photo in enumerate(others):
            rng = np.random.default_rng(seed_for(seed, f"judge check {identity}", n))
            donor = donors[int(rng.integers(len(donors)))]
            if other := masked_photo(rows[int(rng.choice(numbers[donor]))]):
                candidates = candidates_of(reference, photo, other, rng)
                trials.append(Trial(identity, donor, relation, reference, candidates))
        if trials:
            yield trials


def masked_photo(row: Row) -> MaskedPhoto | None:
    """A row's photo, the largest square around its object, with the mask; None where the mask is empty."""
    image, mask = open_rgba(row["image"]).convert("RGB"), open_mask(row)
    if not mask.any():
        return None
    box = window(*image.size, (1, 1), mask_box(mask))
    square, mask = image.crop(box), np.asarray(Image.fromarray(mask).crop(box))
    square.thumbnail((MAX_SIDE, MAX_SIDE))
    mask = fit_mask(mask, *square.size)
    return MaskedPhoto(np.asarray(square), mask) if mask.any() else None


def donors_of(identity: str, classes: Mapping[str, str | None]) -> tuple[list[str], Relation]:
    """Other identities: those of the same class, else of the same class group, else all.

    >>> donors_of("rex", {"rex": "dog", "tom": "cat", "fido": "dog"})
    (['fido'], 'class')
    """
    own, others = classes[identity], [i for i in classes if i != identity]
    if alike := [i for i in others if own is not None and classes[i] == own]:
        return alike, "class"
    if alike := [i for i in others if own is not None and class_group(classes[i]) == class_group(own)]:
        return alike, "class group"
    return others, "any"


def candidates_of(
    reference: MaskedPhoto, photo: MaskedPhoto, donor: MaskedPhoto, rng: Generator
) -> dict[str, MaskedPhoto]:
    """What is compared with the reference: another photo of its object, and what is made of that and of a donor."""
    placed = {"another_in_place": transplanted(reference, donor), "moved": transplanted(donor, photo)}
    return {"true": photo, "another_object": donor, **placed, **corrupted_copies(photo, donor, rng)}


def score_trials(trials: Sequence[Trial], scores: Mapping[str, PairScore]) -> list[Scores]:
    """Every judge's score of every candidate, of trials with one reference."""
    photos = [photo for t in trials for photo in t.candidates.values()]
    by_judge = {judge: iter(score(trials[0].reference, photos)) for judge, score in scores.items()}
    return [
        {judge: {name: round(next(values), DECIMALS) for name in t.candidates} for judge, values in by_judge.items()}
        for t in trials
    ]


def outcomes(trials: Sequence[ScoredTrial], judge: str) -> dict[str, Outcome]:
    """How a judge did in every comparison that has trials, by its key."""
    found = [(c, [t for t in trials if c.wrong in t.scores[judge]]) for c in COMPARISONS]
    return {c.key: _outcome(of, judge, c) for c, of in found if of}


def _outcome(trials: Sequence[ScoredTrial], judge: str, c: Comparison) -> Outcome:
    pairs = np.array([(t.scores[judge][c.true], t.scores[judge][c.wrong]) for t in trials])
    wins, owners = (np.sign(pairs[:, 0] - pairs[:, 1]) + 1) / 2, [t.identity for t in trials]
    true, wrong = pairs.mean(0).round(DECIMALS).tolist()
    return Outcome(estimate_share(wins, owners), true, wrong, len(set(owners)))
