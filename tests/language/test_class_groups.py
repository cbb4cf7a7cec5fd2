import csv
from pathlib import Path

import pytest

from taming_core.language.class_groups import GROUPS, OTHER, class_group, is_live

MINI = Path(__file__).parents[2] / "pipelines" / "mini" / "concepts.tsv"

# The classes of google/dreambooth, dataset/prompts_and_classes.txt.
DREAMBENCH = {
    "backpack": "container", "stuffed animal": "toy", "bowl": "container", "can": "container", "candle": "device",
    "cat": "animal", "clock": "device", "sneaker": "clothing", "dog": "animal", "toy": "toy", "boot": "clothing",
    "glasses": "clothing", "cartoon": "other", "teapot": "container", "vase": "container",
}  # fmt: skip
# Classes of yuangpeng/dreambench_plus that its public code and examples name.
DREAMBENCH_PLUS = {
    "kitten": "animal", "crab": "animal", "frog": "animal", "sea turtle": "animal", "sphynx cat": "animal",
    "grasshopper": "animal", "toucan": "animal", "lion": "animal", "space ranger": "person", "girl": "person",
    "pixelated warrior": "person", "basketball player": "person", "samurai": "person", "man": "person",
    "basketball shoe": "clothing", "vintage camera": "device", "guitar": "device", "rubber duck": "toy",
    "poke ball": "toy", "leather handbag": "container", "sunglasses": "clothing", "boat": "vehicle",
    "robot": "device", "piggy bank": "container",
}  # fmt: skip
# Words as detectors write them, of several senses, and in the plural.
OTHERS = {
    "T-shirt": "clothing", "Bat (Animal)": "device", "potted plant": "other", "airplane/aeroplane": "vehicle",
    "tiger": "animal", "lobster": "animal", "mushrooms": "plant", "strawberries": "food", "dragon": "creature",
    "dog face": "animal", "toy car": "vehicle", "bear plushie": "toy", "kings": "person", "couch": "furniture",
    "castle": "building", "statue": "artwork", "train": "vehicle", "gloves": "clothing",
}  # fmt: skip


@pytest.mark.parametrize(("noun", "group"), (DREAMBENCH | DREAMBENCH_PLUS | OTHERS).items())
def test_a_class_has_its_group(noun: str, group: str):
    assert class_group(noun) == group


def test_words_that_wordnet_lacks_are_of_no_group():
    assert {class_group(noun) for noun in ("mage", "roll of film", "qwerty", "", None)} == {OTHER}


@pytest.mark.parametrize(
    ("category", "groups", "share"),
    [("animals-nature", {"animal", "creature", "plant"}, 0.85), ("food-drink", {"food", "container", "plant"}, 0.75)],
)
def test_most_concepts_of_mini_have_the_group_of_their_unicode_category(category: str, groups: set[str], share: float):
    with MINI.open(encoding="utf-8", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file, delimiter="\t") if row["group"] == category]
    right = [name for name in names if class_group(name) in groups]
    assert len(right) >= share * len(names) > 0


def test_live_subjects_of_dreambench_are_its_cats_and_dogs():
    assert {noun for noun in DREAMBENCH if is_live(noun)} == {"cat", "dog"}


def test_every_group_is_a_plain_word():
    assert len(GROUPS) == 13
    assert all(group.isalpha() for group in GROUPS)
