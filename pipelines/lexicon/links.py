"""What people call things beyond WordNet's hypernyms: young and male animals by their glosses, and everyday names.

`classes.csv`: the senses of COCO's classes, as LVIS maps them to WordNet. `names.csv`: a word, the class that people
also call it by, and where that is from: synonyms in the class names of LVIS, Objects365 and Open Images, senses that
WordNet lists but that its texts hardly use, and usage. A rank counts the senses of a lemma from 1.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from taming_core.language.wordnet import ENDINGS, normalize_spelling

ANIMAL, ARTIFACT, FOOD = 5, 6, 13  # lexicographer files: lexnames(5WN)
NEAR = 2  # steps between a compound and its last word
VISUAL = 8  # uses that count for a sense because detectors mean it; the median of a word in WordNet's texts is 0
AGES = ("young", "baby", "immature", "newborn", "unweaned", "adult", "mature")
SEX_OR_AGE = frozenset([*AGES, "male", "female", "castrated", "uncastrated"])
# A gloss names the kind first; what follows these words describes it: "a bird with a long tail".
DESCRIBES = re.compile(r"[;:(]|\b(?:with|having|that|which|when|whose|is|in|after|bearing|used|kept)\b")
GENERIC = frozenset(
    ["animal", "male", "female", "young", "adult", "mammal", "placental", "vertebrate", "invertebrate", "stock", "game"]
)
LONGEST = 3  # words of an animal's name in a gloss

Senses = dict[str, list[int]]  # the synsets of a lemma, most frequent first
Row = dict[str, str]


@dataclass(frozen=True)
class Taxonomy:
    """Noun synsets by the numbers of the tables."""

    hypernyms: list[list[int]]
    domains: list[int]  # the lexicographer file
    glosses: list[str]
    senses: Senses
    irregular: dict[str, str]  # plurals that no ending forms

    def above(self, synset: int) -> dict[int, int]:
        """The synset and its hypernyms, with the number of steps to each."""
        steps = {synset: 0}
        queue = [synset]
        for below in queue:
            for above in self.hypernyms[below]:
                if above not in steps:
                    steps[above] = steps[below] + 1
                    queue.append(above)
        return steps


def rows(path: Path) -> list[Row]:
    """The rows of one of the tables beside this file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def class_synsets(senses: Senses, classes: Iterable[Row]) -> dict[str, list[int]]:
    """The synsets of COCO's classes; none where WordNet lacks the class."""
    return {row["class"]: [_ranked(senses, s) for s in row["senses"].split(";") if s] for row in classes}


def _ranked(senses: Senses, sense: str) -> int:
    lemma, rank = sense.split("#")
    return senses[lemma][int(rank) - 1]


def animal_links(taxonomy: Taxonomy) -> Iterator[tuple[int, int]]:
    """A synset of young, male or female animals and the animal that its gloss names: lamb, "young sheep"."""
    for synset, gloss in enumerate(taxonomy.glosses):
        words = re.findall(r"[a-z-]+", re.split(DESCRIBES, gloss)[0])
        if taxonomy.domains[synset] == ANIMAL and SEX_OR_AGE & set(words[:3]):
            named = (closest([synset], animals, taxonomy) for animals in _animals(words, taxonomy))
            yield from ((synset, animal) for _, animal in named if animal != synset)


def _animals(words: list[str], taxonomy: Taxonomy) -> Iterator[list[int]]:
    """The senses of the animals that a gloss names, by their longest names."""
    at = 0
    while at < len(words):
        texts = [(n, normalize_spelling(" ".join(words[at : at + n]))) for n in range(LONGEST, 0, -1)]
        length, senses = next(((n, found) for n, text in texts if (found := _animal(text, taxonomy))), (1, []))
        if senses:
            yield senses
        at += length


def _animal(text: str, taxonomy: Taxonomy) -> list[int]:
    """The senses of a noun that are animals, without words such as "mammal"."""
    lemma = next((form for form in _forms(text, taxonomy.irregular) if form in taxonomy.senses), None)
    return (
        [s for s in taxonomy.senses[lemma] if taxonomy.domains[s] == ANIMAL] if lemma and lemma not in GENERIC else []
    )


def _forms(text: str, irregular: dict[str, str]) -> Iterator[str]:
    """What a noun can be the plural of, and the noun itself."""
    yield text
    if text in irregular:
        yield irregular[text]
    yield from (text.removesuffix(ending) + new for ending, new in ENDINGS["noun"] if text.endswith(ending))


def compound_links(taxonomy: Taxonomy) -> Iterator[tuple[int, int]]:
    """A synset of artifacts or food and what the last word of one of its names says it is: a sugar bowl is a bowl.

    Only near ones: a hot dog is no dog, a baseball bat no cricket bat.
    """
    for lemma, senses in taxonomy.senses.items():
        last = taxonomy.senses.get(lemma.rpartition(" ")[2], []) if " " in lemma else []
        for synset in (s for s in senses if taxonomy.domains[s] in (ARTIFACT, FOOD)):
            heads = [h for h in last if taxonomy.domains[h] == taxonomy.domains[synset]]
            if heads and not set(heads) & set(taxonomy.above(synset)):
                _, head = closest([synset], heads, taxonomy)
                if _steps(synset, head, taxonomy) <= NEAR:
                    yield synset, head


def closest(words: Iterable[int], classes: Iterable[int], taxonomy: Taxonomy) -> tuple[int, int]:
    """The pair of senses with the shortest path between them; ties go to the more frequent senses."""
    return min(product(words, classes), key=lambda pair: _steps(*pair, taxonomy))


def _steps(first: int, second: int, taxonomy: Taxonomy) -> float:
    one, other = taxonomy.above(first), taxonomy.above(second)
    return min((one[s] + other[s] for s in one.keys() & other.keys()), default=float("inf"))


def add_names(taxonomy: Taxonomy, classes: dict[str, list[int]], names: Iterable[Row]) -> dict[str, set[int]]:
    """Add the names to the taxonomy, and return the senses of each word that detectors and people mean.

    A word that WordNet lacks, or whose rank is 0, becomes a lemma of the class; else its sense gets the class as a
    hypernym: the sense of that rank, or the closest one.
    """
    meant: dict[str, set[int]] = defaultdict(set)
    for name, synsets in classes.items():
        meant[name] |= set(synsets) & set(taxonomy.senses.get(name, []))
    for row in names:
        name, _, rank = row["class"].partition("#")
        known = [taxonomy.senses[name][int(rank) - 1]] if rank else classes.get(name) or taxonomy.senses[name]
        lemma, _, rank = row["word"].partition("#")
        senses = taxonomy.senses.setdefault(lemma, [])
        if rank == "0" or not senses:
            senses.append(known[0])  # the last sense: that of rank 0
        word, above = closest([senses[int(rank) - 1]] if rank else senses, known, taxonomy)
        add_hypernym(taxonomy, word, above)
        meant[lemma].add(word)
    return meant


def add_hypernym(taxonomy: Taxonomy, synset: int, above: int) -> None:
    """Add a hypernym unless one of the two is one of the other already."""
    if above not in taxonomy.above(synset) and synset not in taxonomy.above(above):
        taxonomy.hypernyms[synset].append(above)
