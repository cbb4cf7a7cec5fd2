"""Groups of object classes in plain words, by the hypernyms of their nouns in WordNet: a kitten is an animal."""

from collections import Counter
from functools import cache, lru_cache

from taming_core.language.class_words import class_names
from taming_core.language.noun_kinds import MAIN, is_part_or_picture
from taming_core.language.wordnet import RARE, hypernyms, lemmas, physical_objects, senses, synset

OTHER = "other"
LIVE = frozenset(["person", "animal", "creature"])
# The hypernyms of each group: a lemma and the rank of its sense. A synset is of the first group that has it, and so is
# a word whose senses are as frequent: a teddy bear is a toy and no animal, a lobster an animal and then food.
GROUPS: dict[str, tuple[tuple[str, int], ...]] = {
    "animal": (("animal", 0),),
    "creature": (("imaginary being", 0), ("spiritual being", 0)),
    "food": (("food", 0), ("food", 1), ("beverage", 0), ("edible fruit", 0)),
    "plant": (("plant", 1), ("fungus", 0), ("plant part", 0), ("flower arrangement", 0)),
    "toy": (("plaything", 0), ("doll", 0), ("game equipment", 0)),
    "clothing": (
        ("clothing", 0), ("footwear", 0), ("footwear", 1), ("handwear", 0), ("glove", 0), ("spectacles", 0),
        ("adornment", 0),
    ),
    "vehicle": (("vehicle", 0), ("public transport", 0)),
    "furniture": (("furniture", 0),),
    "container": (("container", 0), ("dish", 0)),
    "building": (("building", 0), ("housing", 0)),
    "artwork": (("art", 0), ("representation", 1)),
    "device": (("instrumentality", 2),),
    "person": (("person", 0),),
}  # fmt: skip
TOYS = frozenset(["plushie", "plushies", "lego"])  # newer than WordNet 3.1
TOY_WORDS = frozenset([*TOYS, "toy", "plush", "stuffed", "rubber", "inflatable"])  # before an animal: a rubber duck


def is_live(noun: str | None) -> bool:
    """Whether a class is a live subject in the sense of DreamBooth's benchmark: a person, an animal or a creature.

    >>> is_live("dog"), is_live("stuffed animal"), is_live("dragon"), is_live(None)
    (True, False, True, False)
    """
    return class_group(noun) in LIVE


@lru_cache(maxsize=4096)
def class_group(noun: str | None) -> str:
    """The group of a class: one of `GROUPS`, or "other" where WordNet has no such noun, or there is none.

    >>> [class_group(n) for n in ("kitten", "stuffed animal", "teapot", "sneakers", "vintage camera", "poke ball")]
    ['animal', 'toy', 'container', 'clothing', 'device', 'toy']
    """
    found = (_phrase_group(name) for name in class_names(noun or ""))
    return next((group for group in found if group != OTHER), OTHER)


def _phrase_group(phrase: str) -> str:
    """The group of a phrase; of one that WordNet lacks, that of its last words, or of what they show: a dog face."""
    first, _, last = phrase.partition(" ")
    if phrase in TOYS:
        return "toy"
    if found := lemmas(phrase):
        return _lemma_group(found[0])
    if not last:
        return OTHER
    before, _, head = phrase.rpartition(" ")
    group = _phrase_group(before if is_part_or_picture(head) else last)
    return "toy" if group in LIVE and first in TOY_WORDS else group


def _lemma_group(lemma: str) -> str:
    """The group that most uses of a lemma mean; a tiger is no fierce person, although WordNet lists that first."""
    shares: Counter[str] = Counter()
    for sense in senses(lemma):
        if sense.share >= RARE and (group := _synset_group(sense.synset)):
            shares[group] += sense.share
    if shares["animal"] >= MAIN:
        del shares["person"]
    return max((*GROUPS, OTHER), key=shares.__getitem__) if shares else OTHER


def _synset_group(number: int) -> str | None:
    """The group of a synset; None if it is of none, and no physical object."""
    above = hypernyms(number)
    rest = OTHER if above & physical_objects() else None
    return next((group for group, anchors in _anchors().items() if anchors & above), rest)


@cache
def _anchors() -> dict[str, frozenset[int]]:
    return {group: frozenset(synset(*anchor) for anchor in anchors) for group, anchors in GROUPS.items()}
