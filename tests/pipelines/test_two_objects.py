"""The measure of two objects in one image counts what it says it counts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines.mini import two_objects
from pipelines.mini.two_objects import Side, metrics_of, requests_of, sides_of
from taming_core.evaluation.judges import Judge
from taming_core.params.load import load_params
from taming_core.weights.mini import MINI

FEATURES = np.array([[1, 0, 0], [0, 0, 1]], np.float32)  # the subjects: red, and blue


def colours(images: list[Image.Image]) -> np.ndarray:
    """A judge that sees only how much of red, green and blue there is beyond grey."""
    return np.stack([np.abs(np.asarray(i, np.float32) - 128).mean((0, 1)) for i in images])


def image_of(left: str | None, right: str | None) -> Image.Image:
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    for colour, x in ((left, 8), (right, 40)):
        if colour is not None:
            ImageDraw.Draw(image).rectangle((x, 20, x + 16, 44), fill=colour)
    return image


def find(image: np.ndarray) -> list[np.ndarray]:
    halves = [np.zeros(image.shape[:2], bool) for _ in range(2)]
    halves[0][:, :32], halves[1][:, 32:] = True, True
    objects = (image != 128).any(-1)
    return [objects & half for half in halves if (objects & half).any()]


@pytest.mark.parametrize(
    ("left", "right", "order", "expected"),
    [
        ((255, 128, 128), (128, 128, 255), (0, 1), [(True, True), (True, True)]),
        ((255, 128, 128), (128, 128, 255), (1, 0), [(True, False), (True, False)]),
        ((255, 128, 128), None, (0, 1), [(True, True), (False, False)]),
    ],
)
def test_each_side_is_compared_with_its_own_object_and_the_other(
    left: str, right: str | None, order: tuple[int, int], expected: list[tuple[bool, bool]]
) -> None:
    judge: Judge = colours
    sides = sides_of(image_of(left, right), order, FEATURES, judge, find, load_params().materialize)
    assert [(s.found, s.right) for s in sides] == expected


def test_both_orders_have_the_same_prompt_and_noise() -> None:
    requests = list(requests_of(2, 0))
    assert [r.objects for r in requests] == [(0, 1), (1, 0), (2, 3), (3, 2)]
    assert requests[0].seed == requests[1].seed != requests[2].seed
    assert requests[0].prompt == requests[1].prompt


def test_an_image_that_does_not_change_is_right_by_half() -> None:
    one_order, swapped = [Side(True, True)] * 2, [Side(True, False)] * 2
    images = [image_of(None, None)] * 4
    metrics = metrics_of([one_order, swapped] * 2, images)
    assert (metrics["own_place"], metrics["all_four_right"], metrics["pixel_change"]) == (0.5, 0.0, 0.0)
    assert metrics_of([one_order] * 4, images)["all_four_right"] == 1.0


def test_it_measures_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = load_params().generate.sampling.model_copy(update={"steps": 1})
    quick = load_params().model_copy(
        update={"generate": load_params().generate.model_copy(update={"sampling": sampling})}
    )
    monkeypatch.setattr(two_objects, "load_params", lambda: quick)
    two_objects.main(tmp_path, pairs=1, world=MINI / "world", device="cpu")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["pairs"] == 1
    assert metrics["pixel_change"] < 1e-3  # the shipped encoder does not bind
    assert Image.open(tmp_path / "sheet.png").width > 4 * 128
