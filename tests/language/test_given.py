"""`<object>` goes into a person's caption, and not one of their other words changes."""

import pytest

from taming_core.language.english import is_english, is_tag_list
from taming_core.language.given import append, name_class, place_objects
from taming_core.language.tagged import fill_tagged, parse_answer, parse_tagged_caption

TEMPLATE = "a photo of a <object>"
ENGLISH = [
    "a photo of a dog on the beach", "my dog Rex", "ohwx man with a hat", "pikachu plush on an IKEA shelf",
    "fluffy brown dog sleeping", "1girl, solo, long hair, looking at viewer, masterpiece, best quality",
    "SKS_style, cherries, 1girl, masterpiece", "Rex the golden retriever, soft light",
]  # fmt: skip
OTHERS = [
    "ein Hund auf dem Strand", "Foto von einem Rucksack im Wald", "un chien sur la plage", "une photo d'un chat",
    "un perro en la playa", "una foto de un gato en el sofá", "un cane sulla spiaggia", "een hond op het strand",
    "um cachorro na praia", "en hund på stranden", "pies na plaży", "köpek plajda", "một con chó trên bãi biển",
    "木桌上的两颗樱桃", "собака на пляже", "海辺の犬", "해변의 개", "σκύλος στην παραλία", "كلب على الشاطئ",
    "IMG_2034", "2034", "",
]  # fmt: skip


@pytest.mark.parametrize("caption", ENGLISH)
def test_english(caption: str) -> None:
    assert is_english(caption)


@pytest.mark.parametrize("caption", OTHERS)
def test_other_languages_and_no_language(caption: str) -> None:
    assert not is_english(caption)


def test_tags_are_no_sentence() -> None:
    tags = ["SKS_style, cherries, 1girl, masterpiece", "dog; beach; sunset", "cat\nsofa", "dog | best quality"]
    sentences = ["a dog, on the left", "my dog", "the dog on a sofa, soft light", "dog"]
    assert [is_tag_list(t) for t in (*tags, *sentences)] == [True] * 4 + [False] * 4


CASES: list[tuple[str, list[str | None], list[tuple[str, str, str]]]] = [
    ("a puppy in the snow", ["dog"], [("a <object> in the snow", "a puppy in the snow", "given noun")]),
    ("my dog Rex on a sofa", [None], [("my <object> on a sofa", "my dog Rex on a sofa", "given head")]),
    ("SKS_style, cherries, 1girl, masterpiece", ["food"],
     [("SKS_style, <object>, 1girl, masterpiece", "SKS_style, cherries, 1girl, masterpiece", "given noun")]),
    ("SKS_style, cherries, 1girl, masterpiece", ["vehicle"],
     [("a photo of a <object>, SKS_style, cherries, 1girl, masterpiece",
       "a photo of a vehicle, SKS_style, cherries, 1girl, masterpiece", "given template")]),
    ("SKS_style, cherries, 1girl, masterpiece", [None],
     [("a photo of a <object>, SKS_style, cherries, 1girl, masterpiece",
       "a photo of an object, SKS_style, cherries, 1girl, masterpiece", "given template")]),
    ("木桌上的两颗樱桃", ["apple"],
     [("a photo of a <object>, 木桌上的两颗樱桃", "a photo of an apple, 木桌上的两颗樱桃", "given template")]),
    ("木桌上的两颗樱桃", ["樱桃"], [("木桌上的两颗<object>", "木桌上的两颗樱桃", "given class")]),
    ("ein Rucksack im Wald", ["Rucksack"], [("ein <object> im Wald", "ein Rucksack im Wald", "given class")]),
    ("ein Rucksack im Wald", [None],
     [("a photo of a <object>, ein Rucksack im Wald", "a photo of an object, ein Rucksack im Wald", "given template")]),
    ("eine Tasse, eine Kanne, eine Tasse", ["Tasse", "Kanne", "Tasse"],
     [("eine <object>, eine Kanne, eine Tasse", "eine Tasse, eine Kanne, eine Tasse", "given class"),
      ("eine Tasse, eine <object>, eine Tasse", "eine Tasse, eine Kanne, eine Tasse", "given class"),
      ("eine Tasse, eine Kanne, eine <object>", "eine Tasse, eine Kanne, eine Tasse", "given class")]),
    ("a dog and a cat", ["dog", "cat", "car"],
     [("a <object> and a cat", "a dog and a cat", "given noun"),
      ("a dog and a <object>", "a dog and a cat", "given noun"),
      ("a photo of a <object>, a dog and a cat", "a photo of a car, a dog and a cat", "given template")]),
    ("a dog house in the garden", ["dog"],
     [("a photo of a <object>, a dog house in the garden", "a photo of a dog, a dog house in the garden",
       "given template")]),
    ("a <Object> on the beach", ["dog"], [("a <object> on the beach", "a dog on the beach", "given")]),
    ("an <object>, 1girl", ["dog"], [("an <object>, 1girl", "a dog, 1girl", "given")]),
    ("<object> by a <object>", ["dog", "apple"],
     [("<object> by an apple", "dog by an apple", "given"), ("dog by a <object>", "dog by an apple", "given")]),
    ("a <object> here", ["dog", "apple"], [("a <object> here", "a dog here", "given"),
                                           ("a <object> here", "an apple here", "given")]),
]  # fmt: skip


@pytest.mark.parametrize(("caption", "nouns", "expected"), CASES)
def test_where_the_placeholder_goes(
    caption: str, nouns: list[str | None], expected: list[tuple[str, str, str]]
) -> None:
    found = place_objects(caption, nouns, "noun", TEMPLATE)
    assert [(w.object_caption, w.caption, w.method) for w in found] == expected
    assert all(w.caption[w.start : w.end] == w.replaced for w in found)


@pytest.mark.parametrize("caption", [*ENGLISH, *filter(None, OTHERS)])
@pytest.mark.parametrize("noun", ["dog", "food", None])
def test_no_word_of_theirs_is_lost(caption: str, noun: str | None) -> None:
    (found,) = place_objects(caption, [noun], "noun", TEMPLATE)
    assert found.caption.endswith(caption)
    assert found.object_caption.count("<object>") == 1
    if found.method == "given template":
        assert found.object_caption == f"{TEMPLATE}, {caption}"


def test_a_class_is_a_whole_word() -> None:
    assert name_class("zwei Katzenkörbe", "Katze") is None
    found = name_class("Die KATZE schläft", "Katze")
    assert found is not None
    assert (found.object_caption, found.replaced) == ("Die <object> schläft", "KATZE")


def test_a_scene_is_appended() -> None:
    assert append("木桌上的樱桃", "on the beach") == "木桌上的樱桃, on the beach"


def test_a_given_caption_may_hold_the_placeholder_already() -> None:
    found = parse_tagged_caption("a <object> and another <object>", ["dog"])
    assert (found.caption, found.object_caption) == ("a dog and another dog", "a <object> and another dog")
    assert [fill_tagged(text, "apple") for text in ("a <object>", "a dog")] == ["an apple", "a dog"]


ANSWERS = [
    ("A <object> on the beach.", "dog", ("A <object> on the beach.", "A dog on the beach.", "captioner")),
    ("A puppy on the beach.", "dog", ("A <object> on the beach.", "A puppy on the beach.", "noun")),
    ("A <object> with a <object>", "dog", ("A <object> with a dog", "A dog with a dog", "noun")),
    ("A <object> here", None, ("A <object> here", "An object here", "captioner")),
    ("a puppy in the snow", None, ("a <object> in the snow", "a puppy in the snow", "head")),
    ("a wall", "dog", None),
    ("", "dog", None),
    ("", None, None),
]


@pytest.mark.parametrize(("answer", "noun", "expected"), ANSWERS)
def test_an_answer_has_one_placeholder_or_is_a_caption(
    answer: str, noun: str | None, expected: tuple[str, str, str] | None
) -> None:
    found = parse_answer(answer, noun, "noun")
    assert (found and (found.object_caption, found.caption, found.method)) == expected
