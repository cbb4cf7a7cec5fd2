"""How words of a caption name an object of a detector's class: a kitten is a cat, a hot dog is no dog."""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from taming_core.language import wordnet
from taming_core.language.wordnet import RARE, Sense, hypernyms, lemmas, normalize_spelling, senses, singular

Naming = Literal["same", "synonym", "special", "general"]
ORDER: tuple[Naming, ...] = ("same", "synonym", "special", "general")  # the best first

RARE_CLASS = 0.025  # share of the uses of a detector's class; rarer senses are ignored
# Domains, by lexicographer file (lexnames(5WN)), and those that they hide in a word: a puppy is no young person, a
# toaster proposes no toast, a banana is no tree.
ANIMAL, ARTIFACT, FOOD, PERSON, PLANT = 5, 6, 13, 18, 20
HIDDEN = {ANIMAL: (PERSON,), ARTIFACT: (PERSON,), FOOD: (PERSON, PLANT)}
REMARK = re.compile(r"\(.*?\)")
CLEARLY = 3  # so many times as frequent, a sense makes a word that of another class
VAGUE = 4  # synsets above this depth are too general: entity, object, whole, matter


@dataclass(frozen=True)
class Likeness:
    """How a word can name an object of a class.

    `same`: the class itself; `synonym`: another word for it; `special`: a hyponym (squirrel for animal); `general`: a
    hypernym (animal for dog).
    """

    kind: Naming
    share: float  # of the word's uses that mean this, in (0, 1]


@cache
def _coco() -> dict[str, frozenset[int]]:
    """The synsets of COCO's classes; none where WordNet lacks the class."""
    table = wordnet.read_table("classes")
    return dict(zip(table.column("name").to_pylist(), map(frozenset, table.column("synsets").to_pylist()), strict=True))


def class_names(noun: str) -> tuple[str, ...]:
    """The names in the name of a class, which LVIS, Objects365 and Open Images write with their own marks.

    >>> class_names("boat/ship/ship boat"), class_names("Bat (Animal)"), class_names("T-shirt")
    (('boat', 'ship', 'ship boat'), ('bat',), ('t shirt',))
    """
    names = filter(None, map(normalize_spelling, REMARK.sub("", noun).split("/")))
    return tuple(names) or (normalize_spelling(noun),)


def first_name(noun: str) -> str:
    """The name of a class for a caption: the first of its names.

    >>> first_name("airplane/aeroplane"), first_name("Bat (Animal)"), first_name("T-shirt")
    ('airplane', 'Bat', 'T-shirt')
    """
    return REMARK.sub("", noun).split("/")[0].strip() or noun


@lru_cache(maxsize=1024)
def _class_synsets(noun: str) -> frozenset[int]:
    """The synsets of a detector's class: its usual senses that are physical objects, or all if none is.

    A timid person is a mouse too, but no detector means that: people count only if they are the first sense.
    """
    if _coco().get(noun):
        return _coco()[noun]
    all_senses = [s for lemma in lemmas(noun) for s in senses(lemma)]
    solid = [s for s in all_senses if hypernyms(s.synset) & wordnet.physical_objects()] or all_senses
    person = wordnet.synset("person")
    people = bool(solid) and person in hypernyms(solid[0].synset)
    meant = [s for s in solid if people or person not in hypernyms(s.synset)]
    total = sum(s.share for s in meant)
    return frozenset(s.synset for s in meant if s.share >= RARE_CLASS * total)


@lru_cache(maxsize=4096)
def _usual_senses(lemma: str) -> tuple[Sense, ...]:
    """The senses of a word in a caption: without rare ones, and without those that a more visible one hides."""
    found = [s for s in senses(lemma) if s.share >= RARE]
    return tuple(s for s in found if not any(_hides(other, s) for other in found))


def _hides(first: Sense, second: Sense) -> bool:
    """Whether a word with both senses means the first: an animal, no person like it; a fruit, not its tree."""
    hidden = HIDDEN.get(int(wordnet.domains()[first.synset]), ())
    return first.share >= second.share and int(wordnet.domains()[second.synset]) in hidden


@lru_cache(maxsize=65536)
def likeness(noun: str, phrase: str) -> Likeness | None:
    """How `phrase` can name an object of the class `noun`; None if it cannot.

    A class that WordNet lacks is looked up by its last word: a sports ball is a ball. One of COCO's classes does not
    take words of the others: a hot dog is no sandwich.

    >>> likeness("animal", "squirrels").kind, likeness("dog", "animal").kind, likeness("couch", "sofa").kind
    ('special', 'general', 'synonym')
    >>> likeness("truck", "fire engine").kind, likeness("dog", "hot dog"), likeness("cat", "category")
    ('special', None, None)
    """
    if noun == phrase:
        return Likeness("same", 1.0)
    found = [like for name in class_names(noun) if (like := _likeness(name, normalize_spelling(phrase)))]
    return min(found, key=_preference, default=None)


def _likeness(noun: str, phrase: str) -> Likeness | None:
    if _is_same(noun, phrase):
        return Likeness("same", 1.0)
    found = _by_senses(noun, phrase)
    return None if found and noun in _coco() and _is_of_another(noun, phrase, found) else found


def _is_same(noun: str, phrase: str) -> bool:
    """Whether both are one word, in singular or plural, in one word or two."""
    return bool({_joined(phrase), _joined(singular(phrase))} & {_joined(noun), _joined(singular(noun))})


def _joined(phrase: str) -> str:
    return phrase.replace(" ", "")


def _by_senses(noun: str, phrase: str) -> Likeness | None:
    if not lemmas(noun):
        last = _by_last_word(noun, phrase) if " " in noun else None
        return Likeness("general", last.share) if last and last.kind in ("same", "synonym") else last
    usual = [s for lemma in lemmas(phrase) for s in _usual_senses(lemma)]
    candidates = [Likeness(kind, s.share) for s in usual if (kind := _kind(_class_synsets(noun), s.synset))]
    return min(candidates, key=_preference, default=None)


def _by_last_word(noun: str, phrase: str) -> Likeness | None:
    last = noun.partition(" ")[2]
    return Likeness("same", 1.0) if _is_same(last, phrase) else _by_senses(last, phrase)


def _is_of_another(noun: str, phrase: str, found: Likeness) -> bool:
    """Whether the phrase rather names an object of another class of COCO."""
    others = [(other, like) for other in _coco() if other != noun and (like := _match(other, phrase))]
    return any(like.kind == "same" or _is_closer(other, like, noun, found) for other, like in others)


def _match(noun: str, phrase: str) -> Likeness | None:
    return Likeness("same", 1.0) if _is_same(noun, phrase) else _by_senses(noun, phrase)


def _is_closer(other: str, like: Likeness, noun: str, found: Likeness) -> bool:
    """Whether the other class is meant more often, or is a kind of the class."""
    if "general" in (like.kind, found.kind):
        return found.kind == "general" != like.kind and not _is_kind(noun, other)
    return like.share > CLEARLY * found.share or (like.share >= found.share and _is_kind(other, noun))


def _is_kind(noun: str, other: str) -> bool:
    return any(hypernyms(s) & _class_synsets(other) for s in _class_synsets(noun))


def _preference(candidate: Likeness) -> tuple[int, float]:
    return ORDER.index(candidate.kind), -candidate.share


def _kind(class_synsets: frozenset[int], sense: int) -> Naming | None:
    if sense in class_synsets:
        return "synonym"
    if hypernyms(sense) & class_synsets:
        return "special"
    if wordnet.depth(sense) >= VAGUE and any(sense in hypernyms(s) for s in class_synsets):
        return "general"
    return None
