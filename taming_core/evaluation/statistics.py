"""Features to numbers: retrieval, similarity, choice, diversity, and how far a mean can be trusted (numpy only)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taming_core.seeds import seed_for

Features = NDArray[np.float32]  # (N, E), rows of unit length
RESAMPLES = 2000  # of the bootstrap: the ends of an interval are right to about 0.01 of its width
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval that holds it."""

    mean: float
    low: float
    high: float
    count: int  # of values


def ranks(features: Features, gallery: Features, truth: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the gallery (G, E) are more like each image (N, E) than the true one is; 0 is recognised, (N,).

    A tie counts against the image.

    >>> one, two = np.eye(2, dtype=np.float32)
    >>> ranks(np.stack([one, one]), np.stack([one, two]), [0, 1]).tolist()
    [0, 1]
    """
    return ranks_by(features @ gallery.T, truth)


def ranks_by(alike: NDArray[np.float32], truth: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """As `ranks`, from the likeness (N, G) of each image with each of the gallery."""
    own = np.take_along_axis(alike, np.asarray(truth)[:, None], 1)
    return (alike >= own).sum(1) - 1


def in_best_pose(features: Features, gallery: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine (N, G) of each image (N, E) with each of the gallery in the pose (G, P, E) that suits it best.

    >>> one, two = np.eye(2, dtype=np.float32)
    >>> in_best_pose(np.stack([one, two]), np.stack([[one, two], [one, one]])).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    things, poses, length = gallery.shape
    return (features @ gallery.reshape(-1, length).T).reshape(len(features), things, poses).max(2)


def own_cosine(features: Features, gallery: Features, truth: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosine (N,) of each image with the true one of the gallery."""
    return (features * gallery[np.asarray(truth)]).sum(1)


def other_cosine(
    features: Features, gallery: Features, truth: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float32]:
    """Mean cosine (N,) of each image with all others of the gallery, of which there is at least one."""
    alike = features @ gallery.T
    others = alike.sum(1) - own_cosine(features, gallery, truth)
    return others / (len(gallery) - 1)


def nearest(images: Features, choices: Features) -> NDArray[np.int64]:
    """Which of the choices (C, E), such as prompts, each image (N, E) is most like, (N,)."""
    return (images @ choices.T).argmax(1)


def spread(features: Features) -> float:
    """Mean of 1 - cosine over all pairs of images (N, E): 0 if all are alike.

    As DIV in Ruiz et al., "DreamBooth", 2023, section 4.2, with features in LPIPS' place.

    Raises:
        ValueError: fewer than two images.
    """
    count = len(features)
    if count < 2:
        raise ValueError("the spread of fewer than two images")
    alike = features.astype(np.float64) @ features.T.astype(np.float64)
    return float(1 - (alike.sum() - np.trace(alike)) / (count * (count - 1)))


def estimate(values: Sequence[float] | NDArray[np.floating], groups: Sequence[object], seed: int) -> Estimate:
    """The mean, and the percentile bootstrap interval of CONFIDENCE over groups.

    Images of one subject are no independent samples, so whole subjects are drawn, not images (Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 13).

    Args:
        values: one per image.
        groups: the subject of each image.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("an estimate of no values")
    _, place = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
    sums, counts = np.bincount(place, np.asarray(values, np.float64)), np.bincount(place)
    rng = np.random.default_rng(seed_for(seed, "bootstrap", 0))
    drawn = rng.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))
