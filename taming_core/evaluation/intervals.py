"""95 % confidence intervals that hold for few objects, on which a percentile bootstrap is too narrow (numpy only).

Images of one object are not independent, nor are the scores of one training, so the uncertainty is that of the means of
objects, and of trainings where there are several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import atan, cos, inf, pi, sin, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95

Values = Sequence[float] | NDArray[np.floating] | NDArray[np.bool_]
Factor = Sequence[object] | NDArray[Any]  # the object, or the training, of each value


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float
    count: int  # of values


class _Spread(NamedTuple):
    """The uncertainty of a mean."""

    variance: float
    t: float  # half-width of its interval / standard error
    clusters: int  # objects


def estimate_mean(values: Values, *factors: Factor, low: float = -inf, high: float = inf) -> Estimate:
    """A mean with Student's t interval.

    Args:
        values: one per image.
        factors: the object of each image, and the training of each image where there are several.
        low, high: the range of the values, to which the interval is cut; that of a single object is the whole range.

    Raises:
        ValueError: no values.
    """
    x, spread = _spread(values, factors)
    half = spread.t * sqrt(spread.variance) if spread.clusters > 1 else inf
    mean = float(x.mean())
    return Estimate(mean, max(mean - half, low), min(mean + half, high), len(x))


def estimate_share(values: Values, *factors: Factor) -> Estimate:
    """The share of ones among zeros and ones, with Wilson's interval for the effective number of images.

    With Student's quantile, and as many images as would be as precise if they were independent: Dean and Pagano,
    "Evaluating confidence interval methods for binomial survey proportions in clustered surveys", 2015. Where all
    values are equal, the objects are counted: eight of eight are no certainty. Arguments as in `estimate_mean`.

    Raises:
        ValueError: no values.
    """
    x, spread = _spread(values, factors)
    if spread.clusters < 2:
        return Estimate(float(x.mean()), 0.0, 1.0, len(x))
    p = float(x.mean())
    n, t = _effective_count(x, spread), spread.t
    centre, half = p + t**2 / (2 * n), t * sqrt(p * (1 - p) / n + t**2 / (4 * n**2))
    low, high = ((centre + side * half) / (1 + t**2 / n) for side in (-1, 1))
    return Estimate(p, min(max(low, 0.0), p), max(min(high, 1.0), p), len(x))


def estimate_share_difference(values: Values, *factors: Factor) -> Estimate:
    """The mean of paired differences of zeros and ones, with Agresti and Min's interval.

    Half a pair is added to each of the four outcomes ("Simple improved confidence intervals for comparing matched
    proportions", 2005), with Student's quantile and the effective number of pairs as in `estimate_share`. Arguments as
    in `estimate_mean`; values are -1, 0 or 1.

    Raises:
        ValueError: no values.
    """
    x, spread = _spread(values, factors)
    d = float(x.mean())
    if spread.clusters < 2:
        return Estimate(d, -1.0, 1.0, len(x))
    n = _effective_count(x, spread)
    centre = n * d / (n + 2)
    half = spread.t * sqrt(((n * float((x**2).mean()) + 1) / (n + 2) - centre**2) / (n + 2))
    return Estimate(d, min(max(centre - half, -1.0), d), max(min(centre + half, 1.0), d), len(x))


def _spread(values: Values, factors: Sequence[Factor]) -> tuple[NDArray[np.float64], _Spread]:
    """The values, and the uncertainty of their mean.

    The squared half-widths of the factors are added, which errs to the safe side: Zou and Donner, "Construction of
    confidence limits about effect measures: a general approach", 2008. A factor with one level has no half-width: the
    interval does not cover what other levels would give.
    """
    if not len(values):
        raise ValueError("an estimate of no values")
    x = np.asarray(values, np.float64)
    clusters = [np.unique([str(level) for level in factor], return_inverse=True)[1] for factor in factors]
    parts = [(_variance(x, cluster), student_t(int(cluster.max()))) for cluster in clusters if cluster.max() > 0]
    objects, total = int(clusters[0].max()) + 1, sum(variance for variance, _ in parts)
    if objects < 2 or total == 0:
        return x, _Spread(total, student_t(max(objects - 1, 1)), objects)
    return x, _Spread(total, sqrt(sum(t**2 * variance for variance, t in parts) / total), objects)


def _variance(x: NDArray[np.float64], cluster: NDArray[np.intp]) -> float:
    """The variance of the mean of `x` by that of the sums of clusters, which may differ in size."""
    sums, count = np.bincount(cluster, x - x.mean()) / len(x), int(cluster.max()) + 1
    return float((sums**2).sum()) * count / (count - 1)


def _effective_count(x: NDArray[np.float64], spread: _Spread) -> float:
    """How many independent values have a mean as precise, at most as many as there are; objects if all are equal."""
    variance = float((x**2).mean() - x.mean() ** 2)
    if variance <= 0:
        return float(spread.clusters)
    return min(variance / spread.variance, len(x)) if spread.variance > 0 else float(len(x))


@cache
def student_t(degrees: int) -> float:
    """The quantile of Student's distribution that bounds CONFIDENCE on both sides, by bisection.

    >>> [round(student_t(degrees), 3) for degrees in (1, 2, 7, 30)]
    [12.706, 4.303, 2.365, 2.042]
    """
    low, high = 0.0, 16.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < CONFIDENCE else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """The probability of [-t, t]: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4."""
    angle = atan(t / sqrt(degrees))
    odd = degrees % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cos(angle) ** 2 * k / (k + 1)
    return (angle + sin(angle) * total) * 2 / pi if odd else sin(angle) * total
