"""How many everyday words of a class are found in captions, and how many words of other classes are taken for it.

    python -m pipelines.lexicon.measure tests/language/data

The folder holds everyday_words.csv (word, class, half, and the first vocabulary that lists the word) and
words_of_both.csv: words that truly name objects of a second class. Rules are chosen without the half "held-out".
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from taming_core.language.placeholder import article, name_object
from taming_core.language.wordnet import singular

Pair = tuple[str, str]  # a word and a class

SENTENCES = (
    "a photo of {one} on the beach",
    "{one}",
    "there is a small {word} next to a tree",
    "a black and white photo of a large old {word}",
    "two {many} in front of a building",
)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs(table: Iterable[dict[str, str]]) -> list[Pair]:
    """The words of a table and their classes."""
    return [(row["word"], row["class"]) for row in table]


@cache
def plural(word: str) -> str | None:
    """The regular plural of a word, None where it is not its plural in WordNet."""
    ending = "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
    many = word[:-1] + "ies" if word.endswith("y") and word[-2:-1] not in "aeiou" else word + ending
    return many if singular(many.lower()) == singular(word.lower()) else None


def missed(sentence: str, words: Sequence[Pair]) -> list[Pair]:
    """The words that are not found for their class."""
    return [(word, noun) for word, noun in words if not is_found(sentence, word, noun)]


def is_found(sentence: str, word: str, noun: str) -> bool:
    """Whether the sentence about the word names an object of the class."""
    text = sentence.format(word=word, one=f"{article(word)} {word}", many=plural(word) or word)
    return name_object(text, noun, "noun") is not None


def confused(words: Sequence[Pair], both: Iterable[Pair], classes: Iterable[str]) -> tuple[list[Pair], int]:
    """The words that are taken for another class, and the number of such pairs."""
    named: dict[str, set[str]] = defaultdict(set)
    for word, noun in [*words, *both]:
        named[word].add(noun)
    others = [(word, noun) for word in dict(words) for noun in dict.fromkeys(classes) if noun not in named[word]]
    return [pair for pair in others if is_found(SENTENCES[0], *pair)], len(others)


def main(folder: Path) -> None:
    """Print both figures for each half."""
    table, both = rows(folder / "everyday_words.csv"), pairs(rows(folder / "words_of_both.csv"))
    for half in dict.fromkeys(row["half"] for row in table):
        words = pairs(row for row in table if row["half"] == half)
        for sentence in SENTENCES:
            print(f"{half}: {1 - len(missed(sentence, words)) / len(words):.1%} of {len(words)} found in {sentence!r}")
        wrong, all_pairs = confused(words, both, [row["class"] for row in table])
        print(f"{half}: {len(wrong) / all_pairs:.3%} of {all_pairs} words of other classes accepted")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
