"""Senses of English words: WordNet 3.1, as small tables in the package, built by `pipelines/lexicon/build.py`.

The tables hold more than WordNet: what people call things (a stool is a chair, a smartphone a cell phone), the animals
that glosses name (a lamb is a sheep), and the senses that COCO's classes mean.

Source: G. A. Miller, "WordNet: a lexical database for English", 1995; its licence is in the folder of the tables.
"""

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

# Regular endings and their replacements in the lemma; irregular forms are a table. Source: morphy(7WN).
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (("s", ""), ("es", ""), ("ies", "y"), ("men", "man")),
    "verb": (("s", ""), ("es", ""), ("ies", "y"), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
}
RARE = 0.05  # share of a word's uses; rarer senses are ignored


@dataclass(frozen=True)
class Sense:
    """One meaning of a word."""

    synset: int
    share: float  # of the word's uses, in (0, 1]


@dataclass(frozen=True)
class _Nouns:
    rows: dict[str, int]
    starts: NDArray[np.int32]
    synsets: NDArray[np.int32]
    counts: NDArray[np.int32]


def read_table(name: str) -> Any:
    """One of the tables; pyarrow's types leave its readers and chunks unknown."""
    pq: Any = parquet
    return pq.read_table(FOLDER / f"{name}.parquet")


@cache
def _nouns() -> _Nouns:
    table = read_table("nouns").combine_chunks()
    lists = table.column("synsets").chunk(0)
    return _Nouns(
        {lemma: i for i, lemma in enumerate(table.column("lemma").to_pylist())},
        lists.offsets.to_numpy(),
        lists.values.to_numpy(),
        table.column("counts").chunk(0).values.to_numpy(),
    )


@cache
def _hypernyms() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    lists = read_table("synsets").combine_chunks().column("hypernyms").chunk(0)
    return lists.offsets.to_numpy(), lists.values.to_numpy()


@cache
def domains() -> NDArray[np.int8]:
    """The lexicographer file of each synset."""
    return read_table("synsets").column("domain").to_numpy()


@cache
def _uses() -> dict[Kind, dict[str, int]]:
    table = read_table("words")
    lemmas = table.column("lemma").to_pylist()
    kinds: tuple[Kind, ...] = ("noun", "verb", "adjective", "adverb")
    counts = {k: table.column(k).to_pylist() for k in kinds}
    return {k: {w: n for w, n in zip(lemmas, counts[k], strict=True) if n is not None} for k in kinds}


@cache
def _irregular() -> dict[tuple[str, str], str]:
    table = read_table("forms")
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
    """The senses of a noun lemma in WordNet's order, the most frequent first, and after them those that were added.

    Shares are add-one smoothed, since counts are sparse.
    """
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
def depth(synset: int) -> int:
    starts, above = _hypernyms()
    return min((1 + depth(s) for s in above[starts[synset] : starts[synset + 1]].tolist()), default=0)


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
