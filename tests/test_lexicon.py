"""What the shipped WordNet tables say, and how words can name things."""

import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taming_core.language import wordnet


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("dogs", "dog"),
        ("buses", "bus"),
        ("knives", "knife"),
        ("cherries", "cherry"),
        ("women", "woman"),
        ("firemen", "fireman"),
        ("mice", "mouse"),
        ("people", "person"),
        ("sheep", "sheep"),
        ("glass", "glass"),
        ("scissors", "scissors"),
        ("golden retrievers", "golden retriever"),
        ("potted plants", "potted plant"),
        ("zorblaxes", "zorblaxes"),
    ],
)
def test_singular(plural: str, one: str) -> None:
    assert wordnet.singular(plural) == one


@pytest.mark.parametrize(
    ("noun", "word", "kind"),
    [
        ("dog", "dogs", "same"),
        ("t-shirt", "T shirts", "same"),
        ("couch", "sofa", "synonym"),
        ("cell phone", "mobile phone", "synonym"),
        ("tv", "television", "synonym"),
        ("dog", "puppy", "special"),
        ("animal", "squirrel", "special"),
        ("food", "hot dog", "special"),
        ("person", "women", "special"),
        ("instrument", "saxophone", "special"),
        ("truck", "fire engine", "special"),
        ("sports ball", "soccer ball", "special"),
        ("dog", "animal", "general"),
        ("dining table", "table", "general"),
        ("sports ball", "ball", "general"),
        ("mouse", "computer mouse", "synonym"),
    ],
)
def test_names(noun: str, word: str, kind: str) -> None:
    found = wordnet.likeness(noun, word)
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    ("noun", "word"),
    [
        ("dog", "hot dog"),  # the same synset as a rare sense of dog
        ("bear", "teddy bear"),
        ("cat", "category"),
        ("animal", "man"),  # the genus Homo
        ("food", "dog"),  # a frankfurter
        ("dog", "object"),  # too vague
        ("dog", "cat"),
        ("mouse", "person"),  # a timid one
        ("zorblax", "dog"),
        ("dog", "zorblax"),
    ],
)
def test_is_no_name(noun: str, word: str) -> None:
    assert wordnet.likeness(noun, word) is None


def test_the_share_of_uses_tells_usual_from_rare_senses() -> None:
    usual, rarer = wordnet.likeness("animal", "dog"), wordnet.likeness("animal", "seal")
    assert usual
    assert rarer
    assert usual.share > 0.8
    assert 0.05 < rarer.share < 0.1  # most seals are on letters


def test_named_things_are_left_out() -> None:
    assert wordnet.likeness("bird", "crane")  # not Stephen Crane
    assert wordnet.lemmas("paris") in ((), ("paris",))  # the genus of plants, not the city
    assert wordnet.senses("statue of liberty") == ()


def test_shares_of_a_word_sum_to_one() -> None:
    assert sum(s.share for s in wordnet.senses("bank")) == pytest.approx(1)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_crashes(noun: str, word: str) -> None:
    assert wordnet.likeness(noun, noun)
    wordnet.likeness(noun, word)
    wordnet.verb(word)
    assert wordnet.singular(wordnet.singular(word)) == wordnet.singular(word) or wordnet.lemmas(word)


def test_tables_are_small_and_carry_their_licence() -> None:
    assert sum(f.stat().st_size for f in wordnet.FOLDER.iterdir()) < 4e6
    assert "Princeton University" in (wordnet.FOLDER / "LICENSE").read_text()


def test_needs_no_torch() -> None:
    code = "import sys; from taming_core.language.placeholder import name_object; name_object('a dog', 'dog', 'noun'); "
    code += "print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_the_tables_are_built_from_wordnets_files(tmp_path: Path) -> None:
    files = {
        "data.noun": [
            "  1 the licence",
            "00000010 03 n 01 entity 0 000 | what is",
            "00000020 05 n 02 ice_bear 0 polar_bear 0 001 @ 00000010 n 0000 | white",
            "00000030 05 n 01 Knut 0 001 @i 00000020 n 0000 | a named one",
        ],
        "index.noun": [
            "entity n 1 0 1 1 00000010  ",
            "ice_bear n 2 1 @ 2 1 00000030 00000020  ",
            "knut n 1 0 1 0 00000030  ",
        ],
        "index.sense": [
            "ice_bear%1:05:00:: 00000020 1 7",
            "entity%1:03:00:: 00000010 1 2",
            "bare%3:00:00:: 00000099 1 4",
        ],
        "noun.exc": ["oxen ox"],
        "verb.exc": ["bore bear"],
    }  # fmt: skip
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    build = runpy.run_path(str(Path(__file__).parent.parent / "pipelines" / "lexicon" / "build.py"))
    build["main"](tmp_path, tmp_path / "out")
    made = {
        name: pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() for name in ("nouns", "synsets", "words")
    }
    assert made["nouns"] == [
        {"lemma": "entity", "synsets": [0], "counts": [2]},
        {"lemma": "ice bear", "synsets": [1], "counts": [7]},
    ]
    assert made["synsets"] == [{"hypernyms": []}, {"hypernyms": [0]}, {"hypernyms": [1]}]
    assert made["words"] == [
        {"lemma": "bare", "adjective": 4, "adverb": None, "noun": None, "verb": None},
        {"lemma": "entity", "adjective": None, "adverb": None, "noun": 2, "verb": None},
    ]
    forms = pq.read_table(tmp_path / "out" / "forms.parquet").to_pylist()
    assert forms == [
        {"form": "oxen", "lemma": "ox", "kind": "noun"},
        {"form": "people", "lemma": "person", "kind": "noun"},
        {"form": "bore", "lemma": "bear", "kind": "verb"},
    ]
