"""What the shipped WordNet tables say."""

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


def test_named_things_are_left_out() -> None:
    assert wordnet.lemmas("paris") in ((), ("paris",))  # the genus of plants, not the city
    assert wordnet.senses("statue of liberty") == ()


def test_shares_of_a_word_sum_to_one() -> None:
    assert sum(s.share for s in wordnet.senses("bank")) == pytest.approx(1)


@given(st.text(max_size=30))
def test_no_text_crashes(word: str) -> None:
    wordnet.verb(word)
    assert wordnet.singular(wordnet.singular(word)) == wordnet.singular(word) or wordnet.lemmas(word)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("kitten", "cat"),  # the glosses of young and male animals
        ("foal", "horse"),
        ("sow", "pig"),
        ("sugar bowl", "bowl"),  # the last word of a compound
        ("ship", "boat"),  # everyday names
    ],
)
def test_more_hypernyms_than_wordnets(word: str, kind: str) -> None:
    assert set(wordnet.hypernyms(wordnet.synset(word))) & {s.synset for s in wordnet.senses(kind)}


def test_a_compound_is_not_always_its_last_word() -> None:
    assert not set(wordnet.hypernyms(wordnet.synset("sea lion"))) & {s.synset for s in wordnet.senses("lion")}


def test_tables_are_small_and_carry_their_licence() -> None:
    assert sum(f.stat().st_size for f in wordnet.FOLDER.iterdir()) < 4e6
    assert "Princeton University" in (wordnet.FOLDER / "LICENSE").read_text()


def test_needs_no_torch() -> None:
    code = "import sys; from taming_core.language.placeholder import name_object; name_object('a dog', 'dog', 'noun'); "
    code += "print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
