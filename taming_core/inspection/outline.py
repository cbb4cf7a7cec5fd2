"""Masks as outlines, which a browser draws over a picture of any size."""

from itertools import pairwise

import numpy as np
from PIL import Image

from taming_core.photos.masks import Mask, Size

SIDE = 480  # pixels of the longer side of the mask that is traced: finer than what is seen of it
TOLERANCE = 0.8  # pixels of it that an outline may be off


def outline(mask: Mask) -> tuple[str, Size]:
    """The outline of a mask (H, W) as the path of an SVG, and the width and height of the space that it is in.

    >>> outline(np.pad(np.ones((4, 6), bool), 3))
    ('M3 3V6H8V3Z', (12, 10))
    """
    import cv2  # only what shows or finds masks needs it

    height, width = mask.shape
    scale = min(SIDE / max(width, height), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = np.asarray(Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BILINEAR)) > 127
    found, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = [cv2.approxPolyDP(contour, TOLERANCE, closed=True)[:, 0].tolist() for contour in found]
    return "".join(_path(points) for points in lines), size


def _path(points: list[list[int]]) -> str:
    """A closed line through points, in the shortest words.

    >>> _path([[1, 2], [1, 5], [4, 5]])
    'M1 2V5H4Z'
    """
    steps = "".join(
        f"V{y}" if x == before[0] else f"H{x}" if y == before[1] else f"L{x} {y}" for before, (x, y) in pairwise(points)
    )
    return f"M{points[0][0]} {points[0][1]}{steps}Z"
