"""Categories of nouns (physical, alive, part, picture) by their hypernyms in WordNet."""

from functools import cache

from taming_core.language import wordnet
from taming_core.language.wordnet import hypernyms, kinds_of, normalize_spelling, senses, singular, synset

MAIN = 0.25  # minimal share of a word's uses of a usual sense
SELDOM = 0.02  # minimal share of a word's uses of a sense that makes it an opener: few shots are photographs
UNLISTED_PICTURES = frozenset(["selfie", "screenshot", "render", "thumbnail"])  # newer than WordNet 3.1


def is_physical(lemma: str) -> bool:
    """Whether one of the lemma's usual senses is a physical object.

    >>> is_physical("building"), is_physical("sitting"), is_physical("piece of cake")
    (True, False, False)
    """
    return any(s.share >= MAIN and hypernyms(s.synset) & wordnet.physical_objects() for s in senses(lemma))


def is_alive(noun: str) -> bool:
    """Whether a noun names a person, an animal or a plant.

    >>> is_alive("potted plants"), is_alive("robot")
    (True, False)
    """
    return synset("living thing") in kinds_of(singular(normalize_spelling(noun)), MAIN)


def is_part_or_picture(head: str) -> bool:
    """Whether "dog HEAD" depicts a dog: dog face and dog statue do, dog house does not."""
    kinds = kinds_of(singular(head), MAIN)
    anchors = ("body part", 0), ("representation", 1), ("plastic art", 0)
    return any(synset(*anchor) in kinds for anchor in anchors)


@cache
def is_opener(noun: str) -> bool:
    """Whether "NOUN of" introduces the subject of a caption: photo, sketch, close-up, group, pair or kind of.

    >>> [is_opener(n) for n in ("photo", "pencil sketch", "herd", "view", "close up", "cup", "plate", "statue")]
    [True, True, True, True, True, False, False, False]
    """
    lemma = next(iter(wordnet.lemmas(noun)), noun.split()[-1])
    senses_above = [hypernyms(s.synset) for s in senses(singular(lemma)) if s.share >= SELDOM]
    if not senses_above:
        return lemma in UNLISTED_PICTURES
    collections, pictures, solid = _anchors()
    pictured = [bool(kinds & pictures) and not kinds & solid for kinds in senses_above]
    # "plate" has a sense in books that is a picture, but is a physical object first.
    in_some_sense = any(pictured) and not senses_above[0] & wordnet.physical_objects()
    return any(kinds & collections for kinds in senses_above[:2]) or pictured[0] or in_some_sense


@cache
def _anchors() -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    """Synsets of collections and sides; of pictures; and of solid representations such as statues."""
    return (
        frozenset([synset("group"), synset("category", 1), synset("location")]),
        frozenset([synset("representation", 1), synset("communication", 1), synset("art"), synset("visual percept")]),
        frozenset([synset("plastic art"), synset("model", 3)]),
    )
