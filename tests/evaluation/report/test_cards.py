"""The pictures of the page and of the sheet, and what stands below them."""

from io import BytesIO

import numpy as np
import pytest
from evaluations import evaluation, image_row, picture
from PIL import Image

from taming_core.evaluation.report import cards, pictures
from taming_core.evaluation.report.sheet import sheet


def test_each_object_stands_beside_its_prompts_in_every_condition() -> None:
    e = evaluation(2)
    second = cards.cards(e)[1]
    assert second.subject.identity == "robot 1"
    assert [(s.condition, s.prompt_number) for s in second.shots] == [
        *((c, k) for c in ("ours", "textual_inversion", "dreambooth") for k in range(3)), ("real_photos", None),
    ]  # fmt: skip
    assert [s.picture for s in second.shots] == list(e.images[10:])
    assert second.shots[2].prompt == "a pencil sketch"
    assert second.seen.picture is e.subjects[1].encoder_image


def test_the_first_image_of_a_prompt_is_shown() -> None:
    e = evaluation(1, more=[image_row("ours", "robot 0", "on the beach", 0.99)])
    assert [s.picture for s in cards.cards(e)[0].shots if s.condition == "ours"] == list(e.images[:3])


def test_marks_and_failures_are_those_of_the_image() -> None:
    row = image_row("ours", "robot 0", "on the beach", 0.4, chosen="in the snow")
    assert cards.marks(row) == "strict .40 · shape .40"
    assert cards.failures(row) == ["not recognised", "not accepted", "read as “in the snow”"]
    assert cards.marks({**row, "shape_found": 0.0}) == "no object found"
    assert cards.failures({**row, "condition": "no_object"}) == []
    assert cards.marks(image_row("ours", "robot 0", "a pencil sketch of", 0.4)) == "judge .40"


def test_the_worst_images_come_first() -> None:
    e = evaluation(12)
    strict = cards.worst(e, cards.cards(e))[0]
    found = [float(s.marks.rsplit(" ", 1)[1]) for _, s in strict.pairs]
    assert strict.measure.key == "strict_cosine"
    assert (len(found), found) == (24, sorted(found))
    assert all(s.condition == "ours" and s.alt.startswith(c.subject.identity) for c, s in strict.pairs)


def test_high_is_worst_where_the_measure_says_so() -> None:
    e = evaluation(1, more=[image_row("ours", "robot 0", "on hot lava", 0.5, copying=0.4)])
    (copying,) = (w for w in cards.worst(e, cards.cards(e)) if w.measure.key == "copying")
    assert copying.pairs[0][1].prompt == "on hot lava"


def test_pictures_are_as_large_as_the_budget_allows() -> None:
    noise = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (512, 512, 3), np.uint8)) for n in range(3)]
    largest = sum(len(pictures.webp(p, 512)) for p in noise)
    assert pictures.fitting(noise, largest) == (512, 3)
    assert pictures.fitting(noise, largest - 3)[0] == 384
    side, count = pictures.fitting(noise, len(pictures.webp(noise[0], 128)) * 3 // 2)
    assert (side, count) == (128, 1)
    assert pictures.fitting([], 0) == (512, 0)


def test_a_small_picture_stays_small_and_keeps_what_is_transparent() -> None:
    seen = evaluation(1).subjects[0].encoder_image
    assert pictures.url(seen, 512).startswith("data:image/webp;base64,")
    opened = Image.open(BytesIO(pictures.webp(seen, 512)))
    assert (opened.size, opened.mode) == ((64, 64), "RGBA")


@pytest.mark.parametrize(("value", "short"), [(0.745, ".74"), (-0.06, "-.06"), (1.0, "1.0"), (0.0, ".00")])
def test_short_numbers(value: float, short: str) -> None:
    assert cards.short_number(value) == short


def test_the_sheet_shows_baselines_where_there_are_any() -> None:
    alone, beside = sheet(evaluation(2, shifts={})), sheet(evaluation(2))
    assert beside.height > 1.9 * alone.height
    drawn = np.asarray(picture(3))[0, 0]  # the first image of Textual Inversion
    assert (np.asarray(beside) == drawn).all(-1).sum() >= 64 * 64
    assert not (np.asarray(alone) == drawn).all(-1).any()
