"""What the shipped WordNet tables say, and how words can name things."""

import subprocess
import sys

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
