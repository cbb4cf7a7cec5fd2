"""Who does what better: paired differences and the sentences on them."""

import pytest
from evaluations import COSTS, evaluation, image_row, name

from taming_core.evaluation.conditions import OURS
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES
from taming_core.evaluation.report import comparison
from taming_core.evaluation.report.comparison import cells, is_better, paired_difference

MEASURE = {m.key: m for m in MEASURES}


def test_a_difference_is_taken_on_the_objects_and_prompts_of_both() -> None:
    rows = [image_row(OURS, name(n), a, 0.5) for n in range(3) for a in ("here", "there")]
    rows += [image_row("dreambooth", name(n), "here", value) for n, value in enumerate((0.6, 0.7, 0.8))]
    rows += [image_row("dreambooth", name(9), "here", -1.0)]  # an object that only one of them has
    found = paired_difference(MEASURE["strict_cosine"], cells(rows, OURS), cells(rows, "dreambooth"))
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(0.2), 3)
    assert found.low == pytest.approx(0.2 - 4.303 * 0.1 / 3**0.5, abs=1e-3)
    assert paired_difference(MEASURE["strict_cosine"], cells(rows, OURS), {}) is None


def test_images_of_one_prompt_count_once() -> None:
    rows = [image_row(OURS, name(n), "here", v) for n in range(2) for v in (0.2, 0.4)]
    rows += [image_row("dreambooth", name(n), "here", 0.5) for n in range(2)]
    found = paired_difference(MEASURE["strict_cosine"], cells(rows, OURS), cells(rows, "dreambooth"))
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(0.2), 2)


def test_more_is_worse_where_the_measure_says_so() -> None:
    more = Estimate(0.2, 0.1, 0.3, 9)
    assert (is_better(MEASURE["strict_cosine"], more), is_better(MEASURE["copying"], more)) == (1, -1)
    assert is_better(MEASURE["strict_cosine"], Estimate(0.2, -0.1, 0.5, 9)) == 0


def test_sentences_say_who_is_better_by_how_much_and_what_it_costs() -> None:
    textual_inversion, dreambooth = comparison.sentences(evaluation(12, costs=COSTS))
    assert "is closer to the object by 0.10 (0.10 to 0.11)" in dreambooth
    assert "is less close to the object by 0.10 (0.09 to 0.10)" in textual_inversion
    assert textual_inversion.endswith(". A new object takes it 3 min, 9,000 times this encoder's time.")
    assert "no clear difference in" in dreambooth


def test_what_is_equal_is_said_to_be_so() -> None:
    assert comparison.sentences(evaluation(12, shifts={"class_noun": 0.0})) == [
        "The class noun alone does not differ from this encoder beyond chance."
    ]


def test_one_object_decides_nothing() -> None:
    assert comparison.sentences(evaluation(1)) == [
        f"{n} does not differ from this encoder beyond chance." for n in ("Textual Inversion", "DreamBooth")
    ]
