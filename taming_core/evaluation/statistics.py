"""Statistics of features: retrieval, similarity, choice, diversity, and confidence intervals of means (numpy only)."""

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
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float
    count: int  # of values


def ranks(features: Features, gallery: Features, truth: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the gallery (G, E) are more similar to each image (N, E) than its true one, (N,); 0 is recognised.

    A tie counts against the image.

    >>> one, two = np.eye(2, dtype=np.float32)
    >>> ranks(np.stack([one, one]), np.stack([one, two]), [0, 1]).tolist()
    [0, 1]
    """
    return ranks_from_cosines(features @ gallery.T, truth)


def ranks_from_cosines(cosines: NDArray[np.float32], truth: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """As `ranks`, from the cosine (N, G) of each image with each of the gallery."""
    true_cosines = np.take_along_axis(cosines, np.asarray(truth)[:, None], 1)
    return (cosines >= true_cosines).sum(1) - 1


def best_pose_cosines(features: Features, gallery: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine (N, G) of each image (N, E) with each of the gallery (G, P, E), in the best of its P poses.

    >>> one, two = np.eye(2, dtype=np.float32)
    >>> best_pose_cosines(np.stack([one, two]), np.stack([[one, two], [one, one]])).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    count, poses, length = gallery.shape
    return (features @ gallery.reshape(-1, length).T).reshape(len(features), count, poses).max(2)


def own_cosine(features: Features, gallery: Features, truth: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosine (N,) of each image (N, E) with its true one of the gallery (G, E)."""
    return (features * gallery[np.asarray(truth)]).sum(1)


def other_cosine(
    features: Features, gallery: Features, truth: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float32]:
    """Mean cosine (N,) of each image with all others of the gallery (G, E), G >= 2."""
    cosines = features @ gallery.T
    others = cosines.sum(1) - own_cosine(features, gallery, truth)
    return others / (len(gallery) - 1)


def nearest_choice(images: Features, choices: Features) -> NDArray[np.int64]:
    """The index (N,) of the choice (C, E), such as a prompt, that each image (N, E) is most similar to."""
    return (images @ choices.T).argmax(1)


def spread(features: Features) -> float:
    """Mean of 1 - cosine over all pairs of images (N, E): 0 if all are equal.

    As DIV in Ruiz et al., "DreamBooth", 2023, section 4.2, with features instead of LPIPS.

    Raises:
        ValueError: fewer than two images.
    """
    count = len(features)
    if count < 2:
        raise ValueError("the spread of fewer than two images")
    cosines = features.astype(np.float64) @ features.T.astype(np.float64)
    return float(1 - (cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def estimate(values: Sequence[float] | NDArray[np.floating], groups: Sequence[object], seed: int) -> Estimate:
    """The mean, and its percentile bootstrap interval at the level CONFIDENCE, resampled over groups.

    Images of one subject are not independent, so subjects are resampled, not images (Efron and Tibshirani,
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
    _, group = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
    sums, counts = np.bincount(group, np.asarray(values, np.float64)), np.bincount(group)
    rng = np.random.default_rng(seed_for(seed, "bootstrap", 0))
    drawn = rng.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))
