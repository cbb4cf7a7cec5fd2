"""How words name the objects of a class."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lexicon import measure
from taming_core.language.class_words import class_names, likeness

DATA = Path(__file__).parent / "data"


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
        ("cat", "kittens", "special"),
        ("dog", "pup", "special"),
        ("horse", "foal", "special"),
        ("sheep", "lambs", "special"),
        ("cow", "calves", "special"),
        ("cow", "bull", "special"),
        ("boat", "ship", "special"),
        ("boat", "steamship", "special"),  # a hyponym of ship
        ("boat", "schooner", "special"),
        ("motorcycle", "scooter", "special"),
        ("cell phone", "smartphone", "synonym"),
        ("chair", "stools", "special"),
        ("oven", "gas stove", "special"),
        ("suitcase", "briefcase", "special"),
        ("handbag", "wallet", "special"),
        ("tv", "computer monitor", "special"),
        ("train", "locomotive", "special"),
        ("hair drier", "hairdryer", "synonym"),
        ("hair dryer", "hair-drier", "synonym"),
        ("stop sign", "stopsign", "same"),
        ("cellphone", "cell phone", "same"),
        ("stove", "oven", "general"),
        ("boat/ship/ship boat", "ship", "same"),
        ("Bat (Animal)", "bats", "same"),
        ("Monitor/TV", "television", "synonym"),
        ("Washing Machine/Drying Machine", "washer", "synonym"),
        ("animal", "puppies", "special"),
        ("vehicle", "bus", "special"),
        ("kitchen appliance", "toaster", "special"),
    ],
)
def test_names(noun: str, word: str, kind: str) -> None:
    found = likeness(noun, word)
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
        ("person", "puppies"),  # young and inexperienced
        ("person", "sheep"),
        ("person", "toasters"),  # who propose a toast
        ("person", "gull"),
        ("car", "bus"),  # an old one
        ("bowl", "bowling ball"),
        ("bird", "kite"),  # COCO's kite is a toy
        ("kite", "hawk"),
        ("potted plant", "banana"),
        ("banana", "plant"),
        ("sandwich", "hot dog"),  # a class of its own
        ("cake", "doughnut"),
        ("remote", "doorbell"),
        ("lion", "sea lion"),
        ("zorblax", "dog"),
        ("dog", "zorblax"),
    ],
)
def test_is_no_name(noun: str, word: str) -> None:
    assert likeness(noun, word) is None


def test_the_share_of_uses_tells_usual_from_rare_senses() -> None:
    usual, rarer = likeness("animal", "dog"), likeness("animal", "seal")
    assert usual
    assert rarer
    assert usual.share > 0.8
    assert 0.05 < rarer.share < 0.1  # most seals are on letters


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_crashes(noun: str, word: str) -> None:
    assert likeness(noun, noun)
    likeness(noun, word)


@pytest.mark.parametrize(
    ("noun", "names"),
    [
        ("airplane/aeroplane", ("airplane", "aeroplane")),
        ("Drill (Tool)", ("drill",)),
        ("T-Shirt", ("t shirt",)),
        ("/", ("/",)),
    ],
)
def test_names_of_a_class(noun: str, names: tuple[str, ...]) -> None:
    assert class_names(noun) == names


@pytest.mark.parametrize("half", ["tuning", "held-out"])
def test_everyday_words_are_found_for_their_class_alone(half: str) -> None:
    table, both = measure.rows(DATA / "everyday_words.csv"), measure.pairs(measure.rows(DATA / "words_of_both.csv"))
    words = measure.pairs(row for row in table if row["half"] == half)
    assert len(words) > 300
    for sentence in (measure.SENTENCES[0], measure.SENTENCES[-1]):
        assert len(measure.missed(sentence, words)) <= 0.05 * len(words)
    wrong, pairs = measure.confused(words, both, [row["class"] for row in table])
    assert len(wrong) <= 0.001 * pairs
