"""Numbers that can be checked by hand."""

import doctest

import numpy as np
import pytest

from taming_core.evaluation import statistics


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


def test_the_choice_is_the_nearest() -> None:
    assert statistics.nearest_choice(unit(10, 80, 50), unit(0, 90)).tolist() == [0, 1, 1]


def test_spread_is_the_mean_distance_of_pairs() -> None:
    assert statistics.spread(unit(0, 60)) == pytest.approx(0.5, abs=1e-6)
    assert statistics.spread(unit(0, 0, 90)) == pytest.approx(2 / 3, abs=1e-6)
    assert statistics.spread(unit(20, 20, 20)) == pytest.approx(0, abs=1e-6)


def test_the_spread_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        statistics.spread(unit(0))
