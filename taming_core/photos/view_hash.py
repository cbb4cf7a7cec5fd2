"""A perceptual hash: near-duplicate views of one object differ in few bits."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def difference_hash(image: NDArray[np.uint8]) -> int:
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
