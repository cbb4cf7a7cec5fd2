"""Intervals hold what they promise at few objects, by simulation with fixed seeds."""

import doctest
from collections.abc import Callable

import numpy as np
import pytest

from taming_core.evaluation import intervals
from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share, estimate_share_difference

RUNS, IMAGES = 2000, 4  # simulated evaluations, and images of one object in each
SIZES = (4, 8, 16, 32)  # objects
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
SCORES: dict[str, Draw] = {  # of an object
    "normal": lambda rng, shape: rng.normal(0.7, 0.1, shape),
    "skewed": lambda rng, shape: 1 - rng.beta(2, 6, shape),
    "heavy": lambda rng, shape: rng.lognormal(0, 1, shape),
}


def test_doctests() -> None:
    assert doctest.testmod(intervals).failed == 0


def by_object(scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (runs, objects * IMAGES) whose scores scatter about their object's, and the object of each."""
    images = scores[..., None] + rng.normal(0, 0.05, (*scores.shape, IMAGES))
    return images.reshape(len(scores), -1), np.repeat(np.arange(scores.shape[1]), IMAGES)


def right_or_not(rng: np.random.Generator, objects: int, share: float, alike: float) -> np.ndarray:
    """Zeros and ones (RUNS, objects, IMAGES); `alike` is the correlation of the images of one object."""
    k = 1 / alike - 1
    easy = rng.beta(share * k, (1 - share) * k, (RUNS, objects, 1))
    return (rng.random((RUNS, objects, IMAGES)) < easy).astype(float)


def sure(found: list[Estimate]) -> float:
    return float(np.mean([e.low > 0 or e.high < 0 for e in found]))


def covered(found: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low - 1e-9 <= truth <= e.high + 1e-9 for e in found]))


@pytest.mark.parametrize("objects", SIZES)
@pytest.mark.parametrize("kind", SCORES)
def test_of_two_equal_encoders_few_differences_are_sure(kind: str, objects: int) -> None:
    rng = np.random.default_rng(SIZES.index(objects))
    one, other = (SCORES[kind](rng, (RUNS, objects)) for _ in range(2))
    values, of = by_object(one - other, rng)
    assert sure([estimate_mean(v, of) for v in values]) <= 0.06


@pytest.mark.parametrize("objects", SIZES)
@pytest.mark.parametrize(("share", "alike"), [(0.5, 0.3), (0.85, 0.3), (0.95, 0.2)])
def test_of_two_equal_shares_few_differences_are_sure(share: float, alike: float, objects: int) -> None:
    rng = np.random.default_rng(SIZES.index(objects))
    one, other = (right_or_not(rng, objects, share, alike) for _ in range(2))
    of = np.repeat(np.arange(objects), IMAGES)
    assert sure([estimate_share_difference(v, of) for v in (one - other).reshape(RUNS, -1)]) <= 0.06


@pytest.mark.parametrize("objects", SIZES)
def test_the_interval_of_a_mean_covers_the_truth(objects: int) -> None:
    rng = np.random.default_rng(SIZES.index(objects))
    for kind, truth in (("normal", 0.7), ("skewed", 0.75)):
        values, of = by_object(SCORES[kind](rng, (RUNS, objects)), rng)
        assert covered([estimate_mean(v, of) for v in values], truth) >= 0.92, kind


@pytest.mark.parametrize("objects", SIZES)
@pytest.mark.parametrize(("share", "alike"), [(0.5, 0.3), (0.85, 0.3), (0.95, 0.2), (0.85, 0.98)])
def test_the_interval_of_a_share_covers_the_truth(share: float, alike: float, objects: int) -> None:
    rng = np.random.default_rng(SIZES.index(objects))
    of = np.repeat(np.arange(objects), IMAGES)
    values = right_or_not(rng, objects, share, alike).reshape(RUNS, -1)
    assert covered([estimate_share(v, of) for v in values], share) >= 0.935


@pytest.mark.parametrize("objects", SIZES)
@pytest.mark.parametrize(("share", "ties"), [(0.5, 0.0), (0.5, 0.4), (0.8, 0.2), (0.95, 0.0)])
def test_the_interval_of_a_win_rate_covers_the_truth_with_ties(share: float, ties: float, objects: int) -> None:
    """As of a judge in `taming eval --judge-check`: up to three pairs of each object, and a tie is half a win."""
    rng = np.random.default_rng(SIZES.index(objects))
    wins = right_or_not(rng, objects, share, 0.3)[..., :3]
    wins = np.where(rng.random(wins.shape) < ties, 0.5, wins).reshape(RUNS, -1)
    of, truth = np.repeat(np.arange(objects), 3), ties / 2 + (1 - ties) * share
    assert covered([estimate_share(v, of) for v in wins], truth) >= 0.935


@pytest.mark.parametrize("objects", [2, 3])
def test_a_stratum_of_few_objects_has_a_wide_interval_that_covers_the_truth(objects: int) -> None:
    rng = np.random.default_rng(objects)
    values, of = by_object(SCORES["normal"](rng, (RUNS, objects)), rng)
    found = [estimate_mean(v, of, low=-1, high=1) for v in values]
    assert covered(found, 0.7) >= 0.93
    assert np.median([e.high - e.low for e in found]) > 0.3
    shares = right_or_not(rng, objects, 0.85, 0.3).reshape(RUNS, -1)
    assert covered([estimate_share(v, np.repeat(np.arange(objects), IMAGES)) for v in shares], 0.85) >= 0.935


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_of_two_equal_methods_few_differences_over_trainings_are_sure(spread: float) -> None:
    """`spread` is how much trainings of one method differ, beside objects (0.2) and both together (0.2)."""
    rng, seeds, objects = np.random.default_rng(0), 3, 16
    trainings = rng.normal(0, 1, (RUNS, seeds, 1)) * spread
    each = rng.normal(0, 0.2, (RUNS, 1, objects)) + rng.normal(0, 0.2, (RUNS, seeds, objects))
    values = (trainings + each).reshape(RUNS, -1)
    of, seed = np.tile(np.arange(objects), seeds), np.repeat(np.arange(seeds), objects)
    assert sure([estimate_mean(v, of, seed) for v in values]) <= 0.06
    over_objects = sure([estimate_mean(v, of) for v in values])
    assert over_objects > 0.3 if spread else over_objects < 0.12


def test_a_difference_that_all_trainings_and_objects_show_is_sure() -> None:
    rng = np.random.default_rng(0)
    values = 0.1 + rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.03, (1, 16)) + rng.normal(0, 0.03, (3, 16))
    found = estimate_mean(values.ravel(), list(range(16)) * 3, np.repeat(range(3), 16))
    assert 0 < found.low < 0.1 < found.high < 0.2


def test_an_interval_is_that_of_students_t_over_objects() -> None:
    found = estimate_mean([1.0, 3.0, 2.0, 6.0], ["a", "a", "b", "b"])
    assert (found.mean, found.count) == (3.0, 4)
    assert found.high - found.mean == pytest.approx(12.706 * 1.0, abs=1e-3)  # means 2 and 4: a standard error of 1
    assert estimate_mean([0.5, 0.5], ["a", "b"]) == Estimate(0.5, 0.5, 0.5, 2)


def test_images_of_one_object_are_not_independent() -> None:
    values = [0.0] * 10 + [1.0] * 10
    apart, together = estimate_share(values, range(20)), estimate_share(values, ["a"] * 10 + ["b"] * 10)
    assert apart.high - apart.low < 0.5
    assert together.high - together.low > 0.9


def test_all_of_a_few_are_no_certainty() -> None:
    few, many = (estimate_share([1.0] * n, range(n)) for n in (4, 100))
    assert (few.mean, few.high, many.high) == (1.0, 1.0, 1.0)
    assert few.low < 0.4
    assert many.low > 0.95
    assert estimate_share([1.0] * 40, [0, 1, 2, 3] * 10).low == few.low  # of the same four objects
    same = estimate_share_difference([0.0] * 8, range(8))
    assert -0.3 < same.low < -0.1 < 0.1 < same.high < 0.3
    assert estimate_share_difference([1.0] * 4, range(4)).low < 0 < estimate_share_difference([1.0] * 8, range(8)).low


def test_of_one_object_anything_is_possible() -> None:
    assert estimate_share([1.0, 1.0], ["a", "a"]) == Estimate(1.0, 0.0, 1.0, 2)
    assert estimate_share_difference([1.0], ["a"]) == Estimate(1.0, -1.0, 1.0, 1)
    assert estimate_mean([0.5, 0.7], ["a", "a"], low=-1, high=1) == Estimate(0.6, -1, 1, 2)


def test_an_interval_ends_where_the_values_do() -> None:
    assert estimate_mean([0.2, 0.9], ["a", "b"], low=0, high=1) == Estimate(0.55, 0, 1, 2)


@pytest.mark.parametrize("estimate", [estimate_mean, estimate_share, estimate_share_difference])
def test_numbers_of_nothing_are_refused(estimate: Callable[..., Estimate]) -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([], [])
