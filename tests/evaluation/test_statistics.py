"""Numbers that can be checked by hand."""

import doctest
from collections.abc import Callable

import numpy as np
import pytest

from taming_core.evaluation import statistics
from taming_core.evaluation.statistics import Estimate


def unit(*degrees: float) -> np.ndarray:
    """Features of unit length in the plane, by their angle."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)


def test_doctests() -> None:
    assert doctest.testmod(statistics).failed == 0


def test_rank_counts_those_that_are_more_alike() -> None:
    gallery = unit(0, 30, 90)
    assert statistics.ranks(unit(10, 10, 10), gallery, [0, 1, 2]).tolist() == [0, 1, 2]


def test_a_tie_is_no_recognition() -> None:
    assert statistics.ranks(unit(0), unit(0, 0), [0]).tolist() == [1]


def test_cosines_with_the_own_and_with_the_others() -> None:
    gallery = unit(0, 60, 90)
    np.testing.assert_allclose(statistics.own_cosine(unit(60), gallery, [0]), [0.5], atol=1e-6)
    np.testing.assert_allclose(statistics.other_cosine(unit(0), gallery, [0]), [(0.5 + 0) / 2], atol=1e-6)


def test_the_choice_is_the_nearest() -> None:
    assert statistics.nearest_choice(unit(10, 80, 50), unit(0, 90)).tolist() == [0, 1, 1]


def test_spread_is_the_mean_distance_of_pairs() -> None:
    assert statistics.spread(unit(0, 60)) == pytest.approx(0.5, abs=1e-6)
    assert statistics.spread(unit(0, 0, 90)) == pytest.approx(2 / 3, abs=1e-6)
    assert statistics.spread(unit(20, 20, 20)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("call", [lambda: statistics.spread(unit(0)), lambda: statistics.estimate([], [], 0)])
def test_numbers_of_nothing_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"fewer than two|no values"):
        call()


def test_an_estimate_is_the_same_for_the_same_seed_only() -> None:
    values, groups = np.linspace(0, 1, 40), [i // 4 for i in range(40)]
    assert statistics.estimate(values, groups, 1) == statistics.estimate(values, groups, 1)
    assert statistics.estimate(values, groups, 1) != statistics.estimate(values, groups, 2)


def test_the_interval_holds_the_mean_and_knows_when_there_is_no_doubt() -> None:
    found = statistics.estimate([0, 1, 0, 1, 1, 1, 0, 1], list("abcdefgh"), 0)
    assert found.low < found.mean == 0.625 < found.high
    assert statistics.estimate([0.5, 0.5], ["a", "b"], 0) == Estimate(0.5, 0.5, 0.5, 2)


def test_images_of_one_subject_are_not_independent() -> None:
    values = [0.0] * 10 + [1.0] * 10
    apart = statistics.estimate(values, list(range(20)), 0)
    together = statistics.estimate(values, ["a"] * 10 + ["b"] * 10, 0)
    assert (together.low, together.high) == (0, 1)
    assert apart.high - apart.low < 0.6


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0.5, 0.1, (60, 25, 1)) + rng.normal(0, 0.1, (60, 25, 4))
    found = [statistics.estimate(m.ravel(), np.repeat(np.arange(25), 4).tolist(), i) for i, m in enumerate(means)]
    assert 0.8 <= np.mean([e.low <= 0.5 <= e.high for e in found]) <= 1.0
