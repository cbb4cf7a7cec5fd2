"""Senses of English words: WordNet 3.1, as small tables in the package, built by `pipelines/lexicon/build.py`.

The tables hold more than WordNet: what people call things (a stool is a chair, a smartphone a cell phone), the animals
that glosses name (a lamb is a sheep), and the senses that COCO's classes mean.

Source: G. A. Miller, "WordNet: a lexical database for English", 1995; its licence is in the folder of the tables.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

FOLDER = Path(__file__).parent / "data"
Kind = Literal["noun", "verb", "adjective", "adverb"]
Naming = Literal["same", "synonym", "special", "general"]
ORDER: tuple[Naming, ...] = ("same", "synonym", "special", "general")  # the best first

# Regular endings and their replacements in the lemma; irregular forms are a table. Source: morphy(7WN).
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (("s", ""), ("es", ""), ("ies", "y"), ("men", "man")),
    "verb": (("s", ""), ("es", ""), ("ies", "y"), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
}
RARE = 0.05  # share of a word's uses; rarer senses are ignored
RARE_CLASS = 0.025  # the same for the classes of detectors
# Domains, by lexicographer file (lexnames(5WN)), and those that they hide in a word: a puppy is no young person, a
# toaster proposes no toast, a banana is no tree.
ANIMAL, ARTIFACT, FOOD, PERSON, PLANT = 5, 6, 13, 18, 20
HIDDEN = {ANIMAL: (PERSON,), ARTIFACT: (PERSON,), FOOD: (PERSON, PLANT)}
REMARK = re.compile(r"\(.*?\)")
CLEARLY = 2  # so many times as frequent, a sense makes a word that of another class
VAGUE = 4  # synsets above this depth are too general: entity, object, whole, matter


@dataclass(frozen=True)
class Sense:
    """One meaning of a word."""

    synset: int
    share: float  # of the word's uses, in (0, 1]


@dataclass(frozen=True)
class Likeness:
    """How a word can name an object of a class.

    `same`: the class itself; `synonym`: another word for it; `special`: a hyponym (squirrel for animal); `general`: a
    hypernym (animal for dog).
    """

    kind: Naming
    share: float  # of the word's uses that mean this, in (0, 1]


@dataclass(frozen=True)
class _Nouns:
    rows: dict[str, int]
    starts: NDArray[np.int32]
    synsets: NDArray[np.int32]
    counts: NDArray[np.int32]


def _table(name: str) -> Any:
    """One of the tables; pyarrow's types leave its readers and chunks unknown."""
    pq: Any = parquet
    return pq.read_table(FOLDER / f"{name}.parquet")


@cache
def _nouns() -> _Nouns:
    table = _table("nouns").combine_chunks()
    lists = table.column("synsets").chunk(0)
    return _Nouns(
        {lemma: i for i, lemma in enumerate(table.column("lemma").to_pylist())},
        lists.offsets.to_numpy(),
        lists.values.to_numpy(),
        table.column("counts").chunk(0).values.to_numpy(),
    )


@cache
def _hypernyms() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    lists = _table("synsets").combine_chunks().column("hypernyms").chunk(0)
    return lists.offsets.to_numpy(), lists.values.to_numpy()


@cache
def _domains() -> NDArray[np.int8]:
    """The lexicographer file of each synset."""
    return _table("synsets").column("domain").to_numpy()


@cache
def _coco() -> dict[str, frozenset[int]]:
    """The synsets of COCO's classes; none where WordNet lacks the class."""
    table = _table("classes")
    return dict(zip(table.column("name").to_pylist(), map(frozenset, table.column("synsets").to_pylist()), strict=True))


@cache
def _uses() -> dict[Kind, dict[str, int]]:
    table = _table("words")
    lemmas = table.column("lemma").to_pylist()
    kinds: tuple[Kind, ...] = ("noun", "verb", "adjective", "adverb")
    counts = {k: table.column(k).to_pylist() for k in kinds}
    return {k: {w: n for w, n in zip(lemmas, counts[k], strict=True) if n is not None} for k in kinds}


@cache
def _irregular() -> dict[tuple[str, str], str]:
    table = _table("forms")
    form, lemma, kind = (table.column(n).to_pylist() for n in ("form", "lemma", "kind"))
    return dict(zip(zip(kind, form, strict=True), lemma, strict=True))


def normalize_spelling(text: str) -> str:
    """Lower case, without apostrophes and dots, with spaces for hyphens and underscores.

    >>> normalize_spelling("T-Shirt"), normalize_spelling("woman's boot")
    ('t shirt', 'womans boot')
    """
    for mark in "'’.":
        text = text.replace(mark, "")
    return " ".join(text.lower().replace("-", " ").replace("_", " ").split())


def uses(kind: Kind, word: str) -> int | None:
    """How often WordNet's tagged texts use a lemma as that part of speech; None if it cannot be one.

    >>> uses("noun", "category") is None, uses("verb", "category") is None
    (False, True)
    """
    return _uses()[kind].get(word)


@lru_cache(maxsize=4096)
def lemmas(phrase: str) -> tuple[str, ...]:
    """The noun lemmas that a phrase can be a form of, likeliest first; empty if WordNet has none.

    >>> lemmas("golden retrievers"), lemmas("knives"), lemmas("glasses"), lemmas("cell phone"), lemmas("running")[:1]
    (('golden retriever',), ('knife',), ('glasses', 'glass'), ('cellphone',), ('running',))
    """
    first, _, last = phrase.rpartition(" ")
    before = first + " " if first else ""
    forms = [before + form for form in (last, *_bases("noun", last))]
    known = tuple(dict.fromkeys(f for f in forms if f in _nouns().rows))
    return known or (lemmas(phrase.replace(" ", "")) if _may_join(phrase) else ())


def _may_join(phrase: str) -> bool:
    """Whether WordNet may write two words as one: a cell phone is a cellphone, a green house is not a greenhouse."""
    first, _, rest = phrase.partition(" ")
    if " " in rest or min(len(first), len(rest)) < 2:
        return False
    return uses("noun", rest) is None or not uses("adjective", first)


def _bases(kind: Literal["noun", "verb"], word: str) -> Iterator[str]:
    if (kind, word) in _irregular():
        yield _irregular()[kind, word]
    if not word.endswith("ss"):
        for ending, replacement in ENDINGS[kind]:
            if word.endswith(ending) and len(word) > len(ending) + 1:
                yield word.removesuffix(ending) + replacement


def singular(phrase: str) -> str:
    """The lemma of a noun; a phrase that WordNet does not know gets its last word in the singular.

    >>> singular("potted plants"), singular("mice"), singular("buses"), singular("people"), singular("scissors")
    ('potted plant', 'mouse', 'bus', 'person', 'scissors')
    """
    known = _irregular().get(("noun", phrase)) or next(iter(lemmas(phrase)), None)
    first, space, last = phrase.rpartition(" ")
    return known or (first + space + singular(last) if space else phrase)


def verb(word: str) -> str | None:
    """The base form of a verb; None if the word cannot be one.

    >>> verb("laying"), verb("sits"), verb("worn"), verb("bed"), verb("bus")
    ('lay', 'sit', 'wear', 'bed', 'bus')
    """
    return next((form for form in (word, *_bases("verb", word)) if uses("verb", form) is not None), None)


@lru_cache(maxsize=4096)
def senses(lemma: str) -> tuple[Sense, ...]:
    """The senses of a noun lemma, most frequent first; shares are add-one smoothed, since counts are sparse."""
    nouns = _nouns()
    row = nouns.rows.get(lemma)
    if row is None:
        return ()
    span = slice(nouns.starts[row], nouns.starts[row + 1])
    counts = nouns.counts[span] + 1
    return tuple(Sense(int(s), float(n / counts.sum())) for s, n in zip(nouns.synsets[span], counts, strict=True))


@lru_cache(maxsize=4096)
def hypernyms(synset: int) -> frozenset[int]:
    """The synset and all of its hypernyms, up to entity."""
    starts, above = _hypernyms()
    direct = above[starts[synset] : starts[synset + 1]].tolist()
    return frozenset([synset]).union(*(hypernyms(s) for s in direct))


@lru_cache(maxsize=4096)
def _depth(synset: int) -> int:
    starts, above = _hypernyms()
    return min((1 + _depth(s) for s in above[starts[synset] : starts[synset + 1]].tolist()), default=0)


def synset(lemma: str, rank: int = 0) -> int:
    """The synset of a lemma's sense; 0 is the most frequent."""
    return senses(lemma)[rank].synset


@cache
def physical_objects() -> frozenset[int]:
    """The top synsets of what can be seen and boxed: physical object, matter, body part."""
    return frozenset([synset("physical object"), synset("matter", 2), synset("body part")])


@lru_cache(maxsize=4096)
def kinds_of(lemma: str, share: float = RARE) -> frozenset[int]:
    """All hypernyms of the lemma's senses without rare ones; an unknown phrase is looked up by its later words."""
    if " " in lemma and not senses(lemma):
        return kinds_of(lemma.partition(" ")[2], share)
    return frozenset(chain.from_iterable(hypernyms(s.synset) for s in senses(lemma) if s.share >= share))


def class_names(noun: str) -> tuple[str, ...]:
    """The names in the name of a class, which LVIS, Objects365 and Open Images write with their own marks.

    >>> class_names("boat/ship/ship boat"), class_names("Bat (Animal)"), class_names("T-shirt")
    (('boat', 'ship', 'ship boat'), ('bat',), ('t shirt',))
    """
    names = filter(None, map(normalize_spelling, REMARK.sub("", noun).split("/")))
    return tuple(names) or (normalize_spelling(noun),)


@lru_cache(maxsize=1024)
def _class_synsets(noun: str) -> frozenset[int]:
    """The synsets of a detector's class: its usual senses that are physical objects, or all if none is.

    A timid person is a mouse too, but no detector means that: people count only if they are the first sense.
    """
    if _coco().get(noun):
        return _coco()[noun]
    all_senses = [s for lemma in lemmas(noun) for s in senses(lemma)]
    solid = [s for s in all_senses if hypernyms(s.synset) & physical_objects()] or all_senses
    person = synset("person")
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
    hidden = HIDDEN.get(int(_domains()[first.synset]), ())
    return first.share >= second.share and int(_domains()[second.synset]) in hidden


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
    if _depth(sense) >= VAGUE and any(sense in hypernyms(s) for s in class_synsets):
        return "general"
    return None
