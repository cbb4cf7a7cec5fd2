"""Statistics of features: retrieval, similarity, choice and diversity (numpy only)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]  # (N, E), rows of unit length


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
