"""How right the attribute words are that `taming caption` would add with the CLIP of `mini`, by the margin.

Colours are what captions of the mini world know of a cut-out object: of a recoloured one they state it.

Example:  python -m pipelines.mini.attribute_measures --photos 400
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from pipelines.mini.stage_params import WORLD
from pipelines.mini.world_data import load_data
from taming_core.captions.attributes import Attribute, crop_of, find_attributes
from taming_core.captions.classifier import load_classifier
from taming_core.params.sections import AttributeParams
from taming_core.world.photos import Photos, render
from taming_core.world.plan import Chances
from taming_core.world.wording import COLOURS

CHANCES = Chances(recolor=0.6, style=0.0, two_objects=0.0, attributes=0.0)
MARGINS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
SIZE, AT_ONCE, SEED = 256, 32, 5  # pixels of a photo, photos in a batch, of the photos
TEMPLATE = "a photo of a <object>"


@dataclass(frozen=True)
class Counts:
    """Words that a margin lets pass."""

    right: int
    wrong: int
    unknown: int  # of objects whose caption states no colour


def main(
    photos: Annotated[int, typer.Option(help="Number of photos per split.")] = 400,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "cpu",
) -> None:
    """Print a table for held-out concepts, and one for held-out designs of known concepts."""
    for split in ("unseen-concepts", "unseen-designs"):
        stated, found = classified(split, photos, device)
        known = sum(word is not None for word in stated)
        print(f"\n{split}: {photos} objects, the captions of {known} state a colour")
        print("| min_margin | right | wrong | of objects without a stated colour |\n| --- | --- | --- | --- |")
        for margin in MARGINS:
            c = count(stated, found, margin)
            print(f"| {margin} | {c.right} | {c.wrong} | {c.unknown} |")


def classified(split: str, number: int, device: str) -> tuple[list[str | None], list[Attribute]]:
    """The colour that each caption states, if it does, and what is found on the cut-out."""
    data, classify = load_data(WORLD, device, render_on_cpu=True), load_classifier("mini", device)
    p = AttributeParams(model="mini", vocabulary={"colour": list(COLOURS)}, min_margin=0.0)
    stated, found = list[str | None](), list[Attribute]()
    for index in range(-(-number // AT_ONCE)):
        batch = render(data.world, data.pictures, SEED, index, AT_ONCE, SIZE, split, CHANCES)
        crops, nouns = crops_of(batch), [subjects[0].noun for subjects in batch.objects]
        stated += [stated_colour(subjects[0].words) for subjects in batch.objects]
        found += [attributes[0] for attributes in find_attributes(crops, nouns, TEMPLATE, classify, p)]
    return stated[:number], found[:number]


def crops_of(photos: Photos) -> list:
    """The main objects, cut out."""
    return [crop_of(image.numpy(), masks[0].numpy()) for image, masks in zip(photos.image, photos.masks, strict=True)]


def stated_colour(words: str) -> str | None:
    """The colour that the words for an object begin with.

    >>> stated_colour("blue squirrel"), stated_colour("squirrel")
    ('blue', None)
    """
    first = words.split()[0]
    return first if first in COLOURS else None


def count(stated: Sequence[str | None], found: Sequence[Attribute], margin: float) -> Counts:
    """The words whose margin is at least `margin`, compared with the captions."""
    passed = [(word, a.word) for word, a in zip(stated, found, strict=True) if a.word and (a.margin or 0) >= margin]
    right, unknown = sum(s == w for s, w in passed), sum(s is None for s, _ in passed)
    return Counts(right, len(passed) - right - unknown, unknown)


if __name__ == "__main__":
    typer.run(main)
