"""What English words mean: WordNet 3.1, as small tables that ship with the package (`pipelines/lexicon/build.py`).

Source: G. A. Miller, "WordNet: a lexical database for English", 1995; its licence lies beside the tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "data"
Kind = Literal["noun", "verb", "adjective", "adverb"]
Naming = Literal["same", "synonym", "special", "general"]
ORDER: tuple[Naming, ...] = ("same", "synonym", "special", "general")  # the best first

# Regular endings and what stands in their place in the lemma; the irregular ones are a table. Source: morphy(7WN).
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (("s", ""), ("es", ""), ("ies", "y"), ("men", "man")),
    "verb": (("s", ""), ("es", ""), ("ies", "y"), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
}
RARE = 0.05  # share of a word's uses below which WordNet's sense is a curiosity
RARE_CLASS = 0.025  # the same for a detector's class, which is meant in an everyday sense
VAGUE = 4  # synsets less deep than this say next to nothing: entity, object, whole, matter


@dataclass(frozen=True)
class Sense:
    """One meaning of a word."""

    synset: int
    share: float  # of the word's uses, in (0, 1]


@dataclass(frozen=True)
class Likeness:
    """How a word can name a thing of some class.

    `same`: the class itself; `synonym`: another word for it; `special`: one kind of it (squirrel for animal);
    `general`: what it is a kind of (animal for dog).
    """

    kind: Naming
    share: float  # of the word's uses that mean this, in (0, 1]


@dataclass(frozen=True)
class _Nouns:
    rows: dict[str, int]
    starts: NDArray[np.int32]
    synsets: NDArray[np.int32]
    counts: NDArray[np.int32]


@cache
def _nouns() -> _Nouns:
    table = pq.read_table(FOLDER / "nouns.parquet").combine_chunks()
    lists = table.column("synsets").chunk(0)
    return _Nouns(
        {lemma: i for i, lemma in enumerate(table.column("lemma").to_pylist())},
        lists.offsets.to_numpy(),
        lists.values.to_numpy(),
        table.column("counts").chunk(0).values.to_numpy(),
    )


@cache
def _hypernyms() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    lists = pq.read_table(FOLDER / "synsets.parquet").combine_chunks().column("hypernyms").chunk(0)
    return lists.offsets.to_numpy(), lists.values.to_numpy()


@cache
def _uses() -> dict[Kind, dict[str, int]]:
    table = pq.read_table(FOLDER / "words.parquet")
    lemmas = table.column("lemma").to_pylist()
    kinds: tuple[Kind, ...] = ("noun", "verb", "adjective", "adverb")
    counts = {k: table.column(k).to_pylist() for k in kinds}
    return {k: {w: n for w, n in zip(lemmas, counts[k], strict=True) if n is not None} for k in kinds}


@cache
def _irregular() -> dict[tuple[str, str], str]:
    table = pq.read_table(FOLDER / "forms.parquet")
    form, lemma, kind = (table.column(n).to_pylist() for n in ("form", "lemma", "kind"))
    return dict(zip(zip(kind, form, strict=True), lemma, strict=True))


def spelled(text: str) -> str:
    """One spelling of what is written with blanks, hyphens, dots or apostrophes.

    >>> spelled("T-Shirt"), spelled("woman's boot")
    ('t shirt', 'womans boot')
    """
    for mark in "'’.":
        text = text.replace(mark, "")
    return " ".join(text.lower().replace("-", " ").replace("_", " ").split())


def uses(kind: Kind, word: str) -> int | None:
    """How often a lemma stands for that kind of word in WordNet's tagged texts; None if it never can.

    >>> uses("noun", "category") is None, uses("verb", "category") is None
    (False, True)
    """
    return _uses()[kind].get(word)


@lru_cache(maxsize=4096)
def lemmas(phrase: str) -> tuple[str, ...]:
    """The noun lemmas that a phrase can be a form of, likeliest first; empty if it is no noun of WordNet.

    >>> lemmas("golden retrievers"), lemmas("knives"), lemmas("glasses"), lemmas("cell phone"), lemmas("running")[:1]
    (('golden retriever',), ('knife',), ('glasses', 'glass'), ('cellphone',), ('running',))
    """
    first, _, last = phrase.rpartition(" ")
    before = first + " " if first else ""
    forms = [before + form for form in (last, *_bases("noun", last))]
    known = tuple(dict.fromkeys(f for f in forms if f in _nouns().rows))
    return known or (lemmas(phrase.replace(" ", "")) if _may_join(phrase) else ())


def _may_join(phrase: str) -> bool:
    """Whether two words can be one in WordNet's spelling: a cell phone is a cellphone, a green house no greenhouse."""
    first, _, rest = phrase.partition(" ")
    if " " in rest or min(len(first), len(rest)) < 2:
        return False
    return uses("noun", rest) is None or not uses("adjective", first)


def _bases(kind: Literal["noun", "verb"], word: str) -> Iterator[str]:
    if (kind, word) in _irregular():
        yield _irregular()[kind, word]
    if not word.endswith("ss"):
        for ending, instead in ENDINGS[kind]:
            if word.endswith(ending) and len(word) > len(ending) + 1:
                yield word.removesuffix(ending) + instead


def singular(phrase: str) -> str:
    """The lemma of a noun; of a phrase that WordNet does not know, with the last word made singular.

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
    """What a noun lemma can mean, most frequent first; one use is added to each sense, for few were ever counted."""
    nouns = _nouns()
    row = nouns.rows.get(lemma)
    if row is None:
        return ()
    span = slice(nouns.starts[row], nouns.starts[row + 1])
    counts = nouns.counts[span] + 1
    return tuple(Sense(int(s), float(n / counts.sum())) for s, n in zip(nouns.synsets[span], counts, strict=True))


@lru_cache(maxsize=4096)
def hypernyms(synset: int) -> frozenset[int]:
    """The synset and all that it is a kind of, up to entity."""
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
def things() -> frozenset[int]:
    """What can be seen and boxed: object, matter, and thing in the sense of a part."""
    return frozenset([synset("physical object"), synset("matter", 2), synset("body part")])


@lru_cache(maxsize=4096)
def kinds_of(lemma: str, share: float = RARE) -> frozenset[int]:
    """Everything that the lemma's senses are kinds of, rare senses left out; an unknown phrase is its last word."""
    if " " in lemma and not senses(lemma):
        return kinds_of(lemma.partition(" ")[2], share)
    return frozenset(chain.from_iterable(hypernyms(s.synset) for s in senses(lemma) if s.share >= share))


@lru_cache(maxsize=1024)
def _class_synsets(noun: str) -> frozenset[int]:
    """What a detector's class means: its everyday senses of things, or all of them if none is a thing.

    A timid person is a mouse too, but no detector says so: people count only where they are the first sense.
    """
    found = [s for lemma in lemmas(noun) for s in senses(lemma)]
    solid = [s for s in found if hypernyms(s.synset) & things()] or found
    person = synset("person")
    people = bool(solid) and person in hypernyms(solid[0].synset)
    meant = [s for s in solid if people or person not in hypernyms(s.synset)]
    total = sum(s.share for s in meant)
    return frozenset(s.synset for s in meant if s.share >= RARE_CLASS * total)


@lru_cache(maxsize=65536)
def likeness(noun: str, phrase: str) -> Likeness | None:
    """How `phrase` can name a thing of the class `noun`; None if it cannot.

    A class that WordNet lacks is known by its last word: a sports ball is a ball.

    >>> likeness("animal", "squirrels").kind, likeness("dog", "animal").kind, likeness("couch", "sofa").kind
    ('special', 'general', 'synonym')
    >>> likeness("truck", "fire engine").kind, likeness("dog", "hot dog"), likeness("cat", "category")
    ('special', None, None)
    """
    noun, phrase = spelled(noun), spelled(phrase)
    if phrase == noun or {singular(phrase), phrase} & {singular(noun)}:
        return Likeness("same", 1.0)
    if not lemmas(noun):
        found = likeness(noun.partition(" ")[2], phrase) if " " in noun else None
        return Likeness("general", found.share) if found and found.kind in ("same", "synonym") else found
    usual = [s for lemma in lemmas(phrase) for s in senses(lemma) if s.share >= RARE]
    named = [Likeness(kind, s.share) for s in usual if (kind := _kind(_class_synsets(noun), s.synset))]
    return min(named, key=lambda n: (ORDER.index(n.kind), -n.share), default=None)


def _kind(meant: frozenset[int], said: int) -> Naming | None:
    if said in meant:
        return "synonym"
    if hypernyms(said) & meant:
        return "special"
    if _depth(said) >= VAGUE and any(said in hypernyms(m) for m in meant):
        return "general"
    return None
