"""The protocols that are shipped: each loads, and has the numbers that its benchmark has."""

from collections import Counter
from itertools import chain

import pytest
from PIL import Image

from taming_core.evaluation import protocol
from taming_core.language.placeholder import OBJECT
from taming_core.params.load import load_params, packaged_params
from taming_core.params.protocols import load_protocol, shipped
from taming_core.world.wording import PLACES, SCENE_WORDINGS, SIZES

OWN = load_params(packaged_params()).evaluate
# The classes of google/dreambooth, dataset/prompts_and_classes.txt, in the order of its subjects.
CLASSES = (
    ["backpack"] * 2 + ["stuffed animal", "bowl", "can", "candle", "cat", "cat", "clock", "sneaker"] + ["dog"] * 7
    + ["toy", "boot", "stuffed animal", "toy", "glasses", "toy", "toy", "cartoon", "toy", "sneaker", "teapot", "vase",
       "stuffed animal"]
)  # fmt: skip


def planned(name: str, classes: dict[str, str]) -> list[protocol.EvalImage]:
    """The images of a protocol with the tokens of the object."""
    nothing = Image.new("RGBA", (4, 4))
    subjects = [protocol.EvalSubject(identity, nothing, nothing, (), noun) for identity, noun in classes.items()]
    images = protocol.plan_images(subjects, load_protocol(name, OWN).evaluate, "object_token")
    return [image for image in images if image.condition == "ours"]


@pytest.mark.parametrize("name", shipped())
def test_each_protocol_loads_and_says_its_source(name: str) -> None:
    found = load_protocol(name, OWN)
    assert found.name == name
    assert found.version
    assert found.description
    assert found.evaluate.split == "test"


def test_dreambench_has_30_subjects_in_25_prompts_four_times() -> None:
    p = load_protocol("dreambench", OWN).evaluate
    images = planned("dreambench", dict(zip(p.subjects, CLASSES, strict=True)))
    assert len(images) == 30 * 25 * 4
    assert set(Counter(image.subject for image in images).values()) == {25 * 4}
    wearing = {p.subjects[image.subject] for image in images if "wearing a santa hat" in image.asked}
    assert wearing == {"cat", "cat2", "dog", "dog2", "dog3", "dog5", "dog6", "dog7", "dog8"}
    assert all(image.request.prompt.count(OBJECT) == 1 for image in images)


def test_mini_has_24_objects_in_eight_prompts_in_words_that_it_has_seen() -> None:
    p = load_protocol("mini", OWN).evaluate
    images = planned("mini", {f"object {i}": "apple" for i in range(p.objects)})
    assert len(images) == 24 * 8
    assert Counter(image.kind for image in images if image.subject == 0) == {
        "scene": 4, "style": 2, "attribute": 1, "action": 1,
    }  # fmt: skip
    assert set(p.scenes) < set(SCENE_WORDINGS)
    words = " ".join(q.text for q in p.prompts)
    assert any(size in words for size in SIZES)
    assert any(place in words for place in PLACES)


def test_two_objects_draws_every_object_with_the_next_one() -> None:
    p = load_protocol("two-objects", OWN).evaluate
    images = planned("two-objects", {f"object {i}": "apple" for i in range(p.objects)})
    assert len(images) == 24 * 7
    assert {image.subjects for image in images} == {(i, (i + 1) % 24) for i in range(24)}
    known = chain.from_iterable((scene, *others) for scene, others in SCENE_WORDINGS.items())
    scenes = {image.asked.partition(f" and a {OBJECT}")[2].strip() for image in images}
    assert scenes - {""} < set(known)
