"""What sort of thing a noun names, by its place in WordNet's hierarchy."""

from functools import cache

from taming_core.language import wordnet
from taming_core.language.wordnet import hypernyms, kinds_of, senses, singular, spelled, synset

MAIN = 0.25  # share of a word's uses from which a sense is what it usually means
SELDOM = 0.02  # share of a word's uses from which it can be an opener: few shots are photographs
UNLISTED_PICTURES = frozenset(["selfie", "screenshot", "render", "thumbnail"])  # younger than WordNet 3.1


def is_thing(lemma: str) -> bool:
    """Whether the lemma's usual senses hold one that can be seen and touched.

    >>> is_thing("building"), is_thing("sitting"), is_thing("piece of cake")
    (True, False, False)
    """
    return any(s.share >= MAIN and hypernyms(s.synset) & wordnet.things() for s in senses(lemma))


def is_alive(noun: str) -> bool:
    """Whether a noun names a person, an animal or a plant.

    >>> is_alive("potted plants"), is_alive("robot")
    (True, False)
    """
    return synset("living thing") in kinds_of(singular(spelled(noun)), MAIN)


def is_part_or_picture(head: str) -> bool:
    """Whether "dog HEAD" shows a dog: its face, its statue, but not its house."""
    kinds = kinds_of(singular(head), MAIN)
    anchors = ("body part", 0), ("representation", 1), ("plastic art", 0)
    return any(synset(*anchor) in kinds for anchor in anchors)


@cache
def is_opener(noun: str) -> bool:
    """Whether what follows "NOUN of" is what the caption is about: a photo, sketch, close-up, group, pair or kind of.

    >>> [is_opener(n) for n in ("photo", "pencil sketch", "herd", "view", "close up", "cup", "plate", "statue")]
    [True, True, True, True, True, False, False, False]
    """
    lemma = next(iter(wordnet.lemmas(noun)), noun.split()[-1])
    found = [hypernyms(s.synset) for s in senses(singular(lemma)) if s.share >= SELDOM]
    if not found:
        return lemma in UNLISTED_PICTURES
    several, pictures, solid = _anchors()
    pictured = [bool(kinds & pictures) and not kinds & solid for kinds in found]
    in_some_sense = any(pictured) and not found[0] & wordnet.things()  # a plate is a picture in books only
    return any(kinds & several for kinds in found[:2]) or pictured[0] or in_some_sense


@cache
def _anchors() -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    """Synsets of: what is several or a side of something; what is a picture; what is one but can be walked around."""
    return (
        frozenset([synset("group"), synset("category", 1), synset("location")]),
        frozenset([synset("representation", 1), synset("communication", 1), synset("art"), synset("visual percept")]),
        frozenset([synset("plastic art"), synset("model", 3)]),
    )
