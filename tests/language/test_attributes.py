"""Words for what may change of an object stand beside `<object>`, where training can leave them out again."""

import pytest

from taming_core.language.attributes import add_attributes, keep_attributes, states_any
from taming_core.language.placeholder import drop_attributes, name_object
from taming_core.language.placeholder import insert_placeholder as insert
from taming_core.language.tagged import parse_tagged_caption


@pytest.mark.parametrize(
    ("caption", "attributes", "plain", "with_object"),
    [
        ("a dog on a sofa", ["sleeping"], "a sleeping dog on a sofa", "a sleeping <object> on a sofa"),
        ("a dog on a sofa", ["old", "wet"], "an old wet dog on a sofa", "an old wet <object> on a sofa"),
        ("an old dog", ["wet"], "a wet old dog", "a wet <object>"),
        ("dog.", ["seen from above"], "dog, seen from above", "<object>, seen from above"),
        ("a dog", ["in dim light", "seen from above"], "a dog, in dim light and seen from above",
         "a <object>, in dim light and seen from above"),
        ("two dogs", ["wet"], "two wet dogs", "two wet <object>"),
    ],
)  # fmt: skip
def test_attributes_are_added_to_both_captions(
    caption: str, attributes: list[str], plain: str, with_object: str
) -> None:
    words = name_object(caption, "dog", "phrase")
    assert words is not None
    found = add_attributes(words, attributes)
    assert (found.caption, found.object_caption, found.replaced) == (plain, with_object, words.replaced)
    assert found.caption[found.start : found.end] == found.replaced


@pytest.mark.parametrize("attributes", [["wet"], ["seen from above"], ["wet", "in dim light", "seen from above"]])
def test_training_without_attributes_drops_what_was_added(attributes: list[str]) -> None:
    words = parse_tagged_caption("a photo of a <object> on the beach", ["dog"])
    found = add_attributes(words, attributes)
    assert drop_attributes(found.caption, found.object_caption) == (words.caption, words.object_caption)


@pytest.mark.parametrize(
    ("caption", "plain", "with_object"),
    [
        ("a wet brown dog", "a wet brown dog", "a wet <object>"),
        ("an old wet dog", "a wet old dog", "a wet <object>"),
        ("a brown dog", "a brown dog", "a <object>"),
        ("a wet", "a wet", "a <object>"),
    ],
)
def test_what_may_change_is_not_part_of_the_identity(caption: str, plain: str, with_object: str) -> None:
    start = caption.index(" ") + 1
    found = keep_attributes(insert(caption, start, len(caption), "noun"), ["wet", "open"])
    assert (found.caption, found.object_caption) == (plain, with_object)
    assert found.caption[found.start : found.end] == found.replaced


def test_a_stated_attribute_is_a_whole_word_or_phrase() -> None:
    assert states_any("A Wet dog", ["wet"])
    assert states_any("a dog, seen from above", ["seen from above"])
    assert not states_any("a dog seen from a hill above", ["seen from above"])
    assert not states_any("a wetsuit", ["wet"])
