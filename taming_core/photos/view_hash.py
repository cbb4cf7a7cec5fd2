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
    """Pearson's correlation of each thumbnail (N, 256) with each of others (M, 256): (N, M); 0 where one is grey alone.

    Sums of integers below 2**53, so that it is the same on any processor.

    >>> correlations(np.uint8([[0, 1, 9], [4, 4, 4]]), np.uint8([[50, 52, 68]])).tolist()
    [[1.0], [0.0]]
    """
    products = a.astype(np.float64) @ b.astype(np.float64).T
    covariances = a.shape[1] * products - np.multiply.outer(a.sum(1, dtype=np.float64), b.sum(1, dtype=np.float64))
    return covariances / np.sqrt(np.maximum(np.multiply.outer(_variances(a), _variances(b)), 1))


def _variances(a: Pixels) -> NDArray[np.int64]:
    """Those of the rows (N, M), times M squared."""
    values = a.astype(np.int64)
    return a.shape[1] * (values * values).sum(1) - values.sum(1) ** 2
