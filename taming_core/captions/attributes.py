"""Words for what may change of an object: its cut-out is classified zero-shot (docs/explanation/method.md section 2).

Each group of the vocabulary is a classification by itself, with the caption without a word as one more class (Radford
et al., "CLIP", 2021, section 3.1). What is part of the identity belongs into no vocabulary: `<object>` stands for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taming_core.language.attributes import add_attributes, keep_attributes, states_any
from taming_core.language.placeholder import ObjectCaption, fill_template
from taming_core.params.sections import AttributeParams
from taming_core.photos.masks import cutout_on_grey

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Classifier = Callable[[Sequence[Image], Sequence[str]], NDArray[np.float32]]  # crops, texts -> logits (crops, texts)
SIDE, FILL = 224, 0.92  # pixels of a crop, and share of it that the object fills, as in training

ADDED, STATED, NONE, CLOSE, MISMATCH = (
    "added", "in the caption", "none fits", "below min_margin", "does not match the photo",
)  # fmt: skip


@dataclass(frozen=True)
class Attribute:
    """The likeliest word of a group, and whether the caption has it."""

    group: str
    word: str | None  # None if the caption without a word is likelier, or was not compared
    score: float | None  # probability of the likeliest class; None if the caption has a word of the group
    margin: float | None  # to the next likeliest
    decision: str

    def as_row(self) -> dict[str, Any]:
        """The struct of the table."""
        return asdict(self)


def crop_of(image: Image, mask: NDArray[np.bool_]) -> Image:
    """The object of `mask` (H, W) without its background, on mid-grey; (SIDE, SIDE, 3)."""
    return cutout_on_grey(image, mask, SIDE, FILL)


def find_attributes(
    crops: Sequence[Image], nouns: Sequence[str], template: str, classify: Classifier, p: AttributeParams
) -> list[list[Attribute]]:
    """The attributes of each object, one per group; decisions as far as the classification makes them.

    Args:
        crops: of the objects, from `crop_of`.
        nouns: their classes.
        template: a caption with `<object>` for the texts, "a photo of a <object>".
        classify: the classifier.
        p: the params.
    """
    found: list[list[Attribute]] = [[] for _ in crops]
    for noun in dict.fromkeys(nouns):
        places = [n for n, other in enumerate(nouns) if other == noun]
        plain = fill_template(template, noun, "")
        words = [word for group in p.vocabulary.values() for word in group]
        texts = [plain.caption, *(add_attributes(plain, [word]).caption for word in words)]
        logits = classify([crops[n] for n in places], texts)
        for place, row in zip(places, logits, strict=True):
            found[place] = _choose(row, p)
    return found


def _choose(logits: NDArray[np.float32], p: AttributeParams) -> list[Attribute]:
    """The choice in every group, from the logits of the plain text and of all words in order."""
    ends = np.cumsum([1, *(len(words) for words in p.vocabulary.values())])
    parts = [logits[start:end] for start, end in pairwise(ends)]
    return [
        _choose_word(group, words, np.concatenate([logits[:1], part]), p.min_margin)
        for (group, words), part in zip(p.vocabulary.items(), parts, strict=True)
    ]


def _choose_word(group: str, words: Sequence[str], logits: NDArray[np.float32], min_margin: float) -> Attribute:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = exponentials / exponentials.sum()
    first, second = (int(n) for n in np.argsort(-probabilities, kind="stable")[:2])
    score, margin = float(probabilities[first]), float(probabilities[first] - probabilities[second])
    if first == 0:
        return Attribute(group, None, score, margin, NONE)
    return Attribute(group, words[first - 1], score, margin, ADDED if margin >= min_margin else CLOSE)


def stated(words: ObjectCaption, found: Sequence[Attribute], p: AttributeParams) -> tuple[Attribute, ...]:
    """The attributes; a group of which the caption has a word already adds none."""
    return tuple(
        Attribute(a.group, None, None, None, STATED) if states_any(words.caption, p.vocabulary[a.group]) else a
        for a in found
    )


def kept(words: ObjectCaption, p: AttributeParams) -> ObjectCaption:
    """The caption, where words of the vocabulary are not part of what `<object>` stands for."""
    return keep_attributes(words, list(chain.from_iterable(p.vocabulary.values())))


def added(words: ObjectCaption, found: Sequence[Attribute]) -> ObjectCaption:
    """The caption with the words that were decided to be added."""
    return add_attributes(words, [a.word for a in found if a.decision == ADDED and a.word])


def mismatched(found: Sequence[Attribute]) -> tuple[Attribute, ...]:
    """The attributes where the caption with the added words does not match the photo, so that none is added."""
    return tuple(replace(a, decision=MISMATCH) if a.decision == ADDED else a for a in found)
