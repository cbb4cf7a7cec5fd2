"""Which words become `<object>`: captions as the mini captioner and BLIP write them, with exact results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taming_core.language import placeholder
from taming_core.language.noun_phrases import phrases
from taming_core.language.placeholder import OBJECT, ObjectCaption

# class, caption, with the noun replaced, with the phrase replaced where that differs
NAMED = [
    # the mini captioner
    ("animal", "a photo of a small squirrel on the beach, on the left",
     "a photo of a small <object> on the beach, on the left", "a photo of a <object> on the beach, on the left"),
    ("tool", "a sepia photo of a hammer and wrench by a lake at sunset, in the center",
     "a sepia photo of a <object> by a lake at sunset, in the center"),
    ("animal", "a pop art poster of a recolored dragon face on polka dots",
     "a pop art poster of a recolored <object> on polka dots", "a pop art poster of a <object> on polka dots"),
    ("animal", "a photo of a pig nose on hot lava", "a photo of a <object> on hot lava"),
    ("animal", "a photo of a bat under a starry night sky", "a photo of a <object> under a starry night sky"),
    ("animal", "a photo of a seal on a seashore", "a photo of a <object> on a seashore"),
    ("animal", "a neon drawing of a mouse on a checkerboard floor",
     "a neon drawing of a <object> on a checkerboard floor"),
    ("animal", "a photo of an ewe in tall grass", "a photo of a <object> in tall grass"),
    ("animal", "a photo of a large lady beetle on autumn leaves",
     "a photo of a large <object> on autumn leaves", "a photo of a <object> on autumn leaves"),
    ("food", "a foggy photo of a turkey on a red background", "a foggy photo of a <object> on a red background"),
    ("food", "an oil painting of a red apple on a orange background",
     "an oil painting of a red <object> on a orange background",
     "an oil painting of a <object> on a orange background"),
    ("food", "a photo of a hot dog on a wooden table", "a photo of a <object> on a wooden table"),
    ("food", "a photo of an ear of corn on green moss", "a photo of an ear of <object> on green moss"),
    ("food", "a photo of a recolored cherries underwater",
     "a photo of a recolored <object> underwater", "a photo of a <object> underwater"),
    ("plant", "a photo of a sunflower in front of a brick wall", "a photo of a <object> in front of a brick wall"),
    ("plant", "a photo of a four leaf clover in a flower garden",
     "a photo of a four <object> in a flower garden", "a photo of a <object> in a flower garden"),
    ("animal", "a photo of a two hump camel in the desert",
     "a photo of a two <object> in the desert", "a photo of a <object> in the desert"),
    ("vehicle", "a pencil sketch of a sport utility vehicle on a stormy road",
     "a pencil sketch of a <object> on a stormy road"),
    ("vehicle", "a photo of a fire engine under a rainbow", "a photo of a <object> under a rainbow"),
    ("instrument", "a photo of a saxophone on a theater stage, at the top",
     "a photo of a <object> on a theater stage, at the top"),
    ("clothing", "a black and white photo of a kimono in a room", "a black and white photo of a <object> in a room"),
    ("building", "a pixel art of a mosque in a city at night", "a pixel art of a <object> in a city at night"),
    ("animal", "a photo of an octopus and a fire engine on wooden planks",
     "a photo of a <object> and a fire engine on wooden planks"),
    ("vehicle", "a photo of an octopus and a fire engine on wooden planks",
     "a photo of an octopus and a <object> on wooden planks"),
    # BLIP on COCO-like photos
    ("dog", "there is a dog that is sitting on the grass", "there is a <object> that is sitting on the grass"),
    ("dog", "arafed image of a dog laying on a couch", "arafed image of a <object> laying on a couch"),
    ("dog", "araffe dog laying on the floor next to a ball", "<object> laying on the floor next to a ball"),
    ("cat", "two cats laying on a couch", "two <object> laying on a couch"),
    ("couch", "two cats laying on a couch", "two cats laying on a <object>"),
    ("dog", "a golden retriever puppy with a stick in its mouth", "a <object> with a stick in its mouth"),
    ("dog", "a woman holding a puppy in her arms", "a woman holding a <object> in her arms"),
    ("dog", "a brown and white dog wearing glasses", "a brown and white <object> wearing glasses",
     "a <object> wearing glasses"),
    ("dog", "two dogs play with a frisbee", "two <object> play with a frisbee"),
    ("frisbee", "a dog plays with a frisbee", "a dog plays with a <object>"),
    ("apple", "an apple on a table", "a <object> on a table"),
    ("apple", "An Apple on a table", "A <object> on a table"),
    ("apple", "an old apple on a table", "an old <object> on a table", "a <object> on a table"),
    ("orange", "an orange cat next to an orange", "an orange cat next to a <object>"),
    ("cat", "an orange cat next to an orange", "an orange <object> next to an orange", "a <object> next to an orange"),
    ("hot dog", "a hot dog with mustard on a bun", "a <object> with mustard on a bun"),
    ("truck", "a red fire engine parked on the side of a street",
     "a red <object> parked on the side of a street", "a <object> parked on the side of a street"),
    ("bus", "a double-decker bus driving down a street", "a <object> driving down a street"),
    ("car", "a small sports car parked in front of a house", "a small <object> parked in front of a house",
     "a <object> parked in front of a house"),
    ("motorcycle", "a man on a motorbike", "a man on a <object>"),
    ("bicycle", "a bike leaning against a wall", "a <object> leaning against a wall"),
    ("airplane", "a large jet flying in the sky", "a large <object> flying in the sky", "a <object> flying in the sky"),
    ("boat", "a couple of boats floating on a lake", "a couple of <object> floating on a lake"),
    ("horse", "a man riding a horse on a beach", "a man riding a <object> on a beach"),
    ("person", "a man riding a horse on a beach", "a <object> riding a horse on a beach"),
    ("person", "a group of people sitting at a table", "a group of <object> sitting at a table"),
    ("sheep", "a herd of sheep grazing in a field", "a herd of <object> grazing in a field"),
    ("giraffe", "a couple of giraffe standing next to a tree", "a couple of <object> standing next to a tree"),
    ("bird", "a crane standing in the water", "a <object> standing in the water"),
    ("cell phone", "a man's hand holding a cellphone", "a man's hand holding a <object>"),
    ("cell phone", "someone is talking on a mobile phone", "someone is talking on a <object>"),
    ("mouse", "a computer mouse on a desk", "a <object> on a desk"),
    ("tv", "a living room with a television", "a living room with a <object>"),
    ("refrigerator", "a kitchen with a fridge and a stove", "a kitchen with a <object> and a stove"),
    ("toilet", "a bathroom with a toilet and a sink", "a bathroom with a <object> and a sink"),
    ("dining table", "a wooden table with a vase of flowers on it", "a wooden <object> with a vase of flowers on it",
     "a <object> with a vase of flowers on it"),
    ("vase", "a wooden table with a vase of flowers on it", "a wooden table with a <object> of flowers on it"),
    ("potted plant", "a potted plant sitting on top of a table", "a <object> sitting on top of a table"),
    ("potted plant", "three potted plants on a shelf", "three <object> on a shelf"),
    ("stop sign", "a red stop sign on a pole", "a red <object> on a pole", "a <object> on a pole"),
    ("sports ball", "a boy kicking a soccer ball", "a boy kicking a <object>"),
    ("wine glass", "two glasses of wine on a table", "two <object> of wine on a table"),
    ("scissors", "a pair of scissors on a desk", "a <object> on a desk"),
    ("tie", "a man in a suit and tie", "a man in a suit and <object>"),
    ("handbag", "a woman with a black purse", "a woman with a black <object>", "a woman with a <object>"),
    ("can", "a can of soda", "a <object> of soda"),
    ("donut", "a box of doughnuts", "a box of <object>"),
    ("teddy bear", "a white teddy bear with a red bow", "a white <object> with a red bow", "a <object> with a red bow"),
    ("elephant", "a close-up of an elephant's trunk", "a close-up of a <object>'s trunk"),
    ("cat", "a cat statue in a garden", "a <object> in a garden"),
    ("dog", "an animal running on the grass", "a <object> running on the grass"),
    ("person", "a man and woman sitting on a bench", "a <object> and woman sitting on a bench"),
    ("t-shirt", "a T-shirt hanging on a wall", "a <object> hanging on a wall"),
    ("plate", "a plate of food", "a <object> of food"),
    ("zorblax", "a photo of a shiny zorblax on the beach",
     "a photo of a shiny <object> on the beach", "a photo of a <object> on the beach"),
    ("dog", "a dog next to a puppy", "a <object> next to a puppy"),
    ("dog", "a puppy next to a dog", "a puppy next to a <object>"),
    ("furniture", "a photo of a lamp on a wooden table", "a photo of a <object> on a wooden table"),
    ("traffic light", "a traffic signal at a corner", "a <object> at a corner"),
    ("remote", "a photo of a remote on the beach", "a photo of a <object> on the beach"),
    ("boat/ship/ship boat", "two ships on the sea", "two <object> on the sea"),
]  # fmt: skip

UNNAMED = [
    ("dog", "a hot dog on a plate"),
    ("cat", "a category of things"),
    ("dog", "a dog house in a garden"),
    ("bear", "a teddy bear on a bed"),
    ("house", "a greenhouse"),
    ("potted plant", "a dog laying in the grass"),  # the scene
    ("plant", "a photo of a squirrel in tall grass"),
    ("furniture", "a photo of a toilet on a wooden table"),
    ("plant", "a photo of a food in tall grass"),
    ("animal", "a man on the beach"),
    ("dog", ""),
    ("dog", "!?"),
    ("dog", "sitting on the"),
]

HEADS = [
    ("a pixel art of a nut and bolt in a city at night", "nut and bolt"),
    ("a photo of a small squirrel on the beach, on the left", "small squirrel"),
    ("a pencil sketch of a unicorn", "unicorn"),
    ("a close up of a plate of food", "plate"),
    ("arafed image of a dog laying on a couch", "dog"),
    ("there are many different types of fruit on display", "fruit"),
    ("a picture showing a dog", "dog"),
    ("a view of a city from a boat", "city"),
    ("a black and white photo of two dogs", "dogs"),
    ("a bunch of yellow bananas", "yellow bananas"),
    ("a photo of a fish cake with swirl in outer space", "fish cake"),
    ("a photo of a womans boot in the snow", "womans boot"),
    ("a t-shirt hanging on a wall", "t-shirt"),
    ("a photo of a hammer and wrench", "hammer and wrench"),
    ("a dog and cat on a bed", "dog"),
    ("on the beach", "beach"),
    ("a photo", "photo"),
    ("cats", "cats"),
]


def named(caption: str, noun: str, replace: placeholder.Replace) -> str | None:
    found = placeholder.name_object(caption, noun, replace)
    return found and found.object_caption


@pytest.mark.parametrize("case", NAMED, ids=lambda case: f"{case[0]}: {case[1]}")
def test_the_words_for_the_class_become_the_object(case: tuple[str, ...]) -> None:
    noun, caption, by_noun, *by_phrase = case
    assert named(caption, noun, "noun") == by_noun
    assert named(caption, noun, "phrase") == (by_phrase[0] if by_phrase else by_noun)


@pytest.mark.parametrize(("noun", "caption"), UNNAMED)
def test_no_words_for_the_class(noun: str, caption: str) -> None:
    assert placeholder.name_object(caption, noun, "noun") is None


@pytest.mark.parametrize(("caption", "head"), HEADS)
def test_what_a_caption_is_about(caption: str, head: str) -> None:
    found = placeholder.head_object(caption, "phrase")
    assert found
    assert (found.replaced, found.method) == (head, "head")


@pytest.mark.parametrize("caption", ["", "?!", "and on the", "quickly"])
def test_a_caption_without_a_noun_is_about_nothing(caption: str) -> None:
    assert placeholder.head_object(caption, "phrase") is None


def test_where_and_what_was_replaced() -> None:
    assert placeholder.name_object("an apple on a table", "fruit", "noun") == ObjectCaption(
        "an apple on a table", "a <object> on a table", "apple", 3, 8, "noun"
    )


def test_objects_of_one_class_get_words_of_their_own_from_left_to_right() -> None:
    found = placeholder.name_objects("a squirrel and a fox near a car", ["animal", "vehicle", "animal"], "noun")
    assert [f and f.replaced for f in found] == ["squirrel", "car", "fox"]


def test_objects_share_a_plural() -> None:
    found = placeholder.name_objects("two dogs on a couch", ["dog", "dog"], "noun")
    assert [f and f.object_caption for f in found] == ["two <object> on a couch"] * 2


@pytest.mark.parametrize(
    ("caption", "where"),
    [
        ("a photo of a squirrel on the beach, on the left", "on the beach, on the left"),
        ("a dog sitting on a couch next to a cat", "on a couch"),
        ("a bus in the middle of a busy street", "in the middle of a busy street"),
        ("a photo of a dog underwater", "underwater"),
        ("a photo of a dog", ""),
        ("", ""),
    ],
)
def test_scene(caption: str, where: str) -> None:
    assert placeholder.scene(caption) == where


@pytest.mark.parametrize(
    ("template", "noun", "caption", "object_caption"),
    [
        ("a photo of <object>", "animal", "a photo of an animal in the snow", "a photo of <object> in the snow"),
        ("a photo of a <object>", "animal", "a photo of an animal in the snow", "a photo of a <object> in the snow"),
        ("the <object>, close up", "dog", "the dog, close up in the snow", "the <object>, close up in the snow"),
        (
            "a photo of a <object>",
            "airplane/aeroplane",
            "a photo of an airplane in the snow",
            "a photo of a <object> in the snow",
        ),
    ],
)
def test_template(template: str, noun: str, caption: str, object_caption: str) -> None:
    found = placeholder.fill_template(template, noun, "in the snow")
    assert (found.caption, found.object_caption, found.method) == (caption, object_caption, "template")
    assert caption[found.start : found.end] == found.replaced


WITHOUT_ATTRIBUTES = [
    ("a photo of a small squirrel on the beach, on the left", "a photo of a small <object> on the beach, on the left",
     "a photo of a squirrel on the beach", "a photo of a <object> on the beach"),
    ("a neon drawing of a recolored <object> on polka dots", "a neon drawing of a recolored <object> on polka dots",
     "a neon drawing of a <object> on polka dots", "a neon drawing of a <object> on polka dots"),
    ("a photo of an octopus and a large fire engine, at the top",
     "a photo of a <object> and a large fire engine, at the top",
     "a photo of an octopus and a large fire engine", "a photo of a <object> and a large fire engine"),
    ("a brown and white dog wearing glasses", "a brown and white <object> wearing glasses",
     "a dog wearing glasses", "a <object> wearing glasses"),
    ("there is a small, very fluffy owl on the grass", "there is a small, very fluffy <object> on the grass",
     "there is a small, owl on the grass", "there is a small, <object> on the grass"),
    ("a very large jet in the sky", "a very large <object> in the sky", "a jet in the sky", "a <object> in the sky"),
    ("An old apple on a table", "An old <object> on a table", "An apple on a table", "A <object> on a table"),
    ("two hot dogs", "two <object>", "two hot dogs", "two <object>"),
    ("a man's red hat", "a man's red <object>", "a man's hat", "a man's <object>"),
    ("a black and white photo of a big kimono", "a black and white photo of a big <object>",
     "a black and white photo of a kimono", "a black and white photo of a <object>"),
    ("a dog on a table with a cup, a plate, and a fork", "a <object> on a table with a cup, a plate, and a fork",
     "a dog on a table with a cup, a plate, and a fork", "a <object> on a table with a cup, a plate, and a fork"),
    ("a photo of a dog in view 0", "a photo of a big <object>", "a photo of a dog in view 0", "a photo of a <object>"),
    ("a photo of an animal", "a photo of <object>", "a photo of an animal", "a photo of <object>"),
    ("", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize("case", WITHOUT_ATTRIBUTES, ids=lambda case: case[0])
def test_words_for_what_may_change_of_the_object_can_go(case: tuple[str, str, str, str]) -> None:
    assert placeholder.drop_attributes(case[0], case[1]) == case[2:]


SAID = (
    "a an the two photo of small red orange apple dog's dogs hot dog, cat category nut and bolt on beach in with is "
    "holding sitting T-shirt close-up . ! <> é 猫 'tis 3"
)
WORDS = st.sampled_from(SAID.split())
NOUNS = st.sampled_from(["dog", "food", "apple", "animal", "hot dog", "", "猫"])
TEXTS = st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=12).map(" ".join))


@given(TEXTS, NOUNS, st.sampled_from(["noun", "phrase"]))
def test_the_object_caption_is_the_caption_with_the_span_replaced(
    caption: str, noun: str, replace: placeholder.Replace
) -> None:
    for found in (placeholder.name_object(caption, noun, replace), placeholder.head_object(caption, replace)):
        if found is None or OBJECT in caption:
            continue
        assert 0 <= found.start < found.end <= len(caption)
        assert found.caption == caption
        assert found.replaced == caption[found.start : found.end]
        assert found.object_caption.count(OBJECT) == 1
        before, after = found.object_caption.split(OBJECT)
        assert after == caption[found.end :]
        assert before == placeholder.AN.sub(r"\1\2", caption[: found.start])


@given(TEXTS, NOUNS)
def test_the_words_that_were_replaced_can_be_put_back(caption: str, noun: str) -> None:
    found = placeholder.name_object(caption, noun, "noun")
    if found is None or OBJECT in caption:
        return
    assert placeholder.replaced_words(caption, found.object_caption) == found.replaced


@given(TEXTS)
def test_phrases_lie_in_order_and_never_cut_a_word(caption: str) -> None:
    at = 0
    for phrase in phrases(caption):
        assert at <= phrase.start <= phrase.noun_start < phrase.end <= len(caption)
        assert not (phrase.start and caption[phrase.start - 1].isalnum())
        assert not caption[phrase.end : phrase.end + 1].isalnum()
        at = phrase.end


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("a <object> and a dog", "an apple and a <object>", ("a <object> and a <object>", True)),
        ("an apple and a <object>", "a <object> and a dog", ("a <object> and a <object>", False)),
        ("a <object> and a dog", "a <object> and a dog", None),  # the same words
        ("a <object>", "an apple and a <object>", None),  # the first stands for both
        ("a pear and a <object>", "a <object> and a dog", None),  # not this caption
    ],
)
def test_two_objects_get_a_placeholder_each(first: str, second: str, both: tuple[str, bool] | None) -> None:
    assert placeholder.replace_both("an apple and a dog", first, second) == both
