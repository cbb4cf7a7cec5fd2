"""A perceptual hash: near-duplicate views of one object differ in few bits."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

THUMBNAIL = 16  # pixels of its side


def difference_hash(image: Pixels) -> int:
    """64 bits that hardly change when a photo (H, W, 3) is scaled or compressed.

    Each tells whether one of 8x8 cells is darker than its right neighbour.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    small = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hamming(a: int, b: int) -> int:
    """The number of differing bits.

    >>> hamming(0b1010, 0b0011)
    2
    """
    return (a ^ b).bit_count()


def thumbnail(image: Pixels) -> bytes:
    """16x16 grey values of a photo (H, W, 3): of objects on a plain background the hashes alone are often alike."""
    size = (THUMBNAIL, THUMBNAIL)
    return Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX).tobytes()


def correlations(a: Pixels, b: Pixels) -> NDArray[np.float64]:
    """Pearson's correlation of each thumbnail (N, 256) with its partner; 0 where one is of a single grey.

    Sums of integers, so that it is the same on any processor.

    >>> correlations(np.uint8([[0, 1, 9], [4, 4, 4]]), np.uint8([[50, 52, 68], [1, 2, 3]])).tolist()
    [1.0, 0.0]
    """
    first, second = a.astype(np.int64), b.astype(np.int64)
    variances = _covariances(first, first) * _covariances(second, second)
    return _covariances(first, second) / np.sqrt(np.maximum(variances, 1))


def _covariances(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows (N, M), times M squared."""
    return a.shape[1] * (a * b).sum(1) - a.sum(1) * b.sum(1)
