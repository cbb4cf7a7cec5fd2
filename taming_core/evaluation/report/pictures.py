"""The pictures of a page as data URLs, as large as its budget of bytes allows."""

import base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

BUDGET = 15_000_000  # bytes of all pictures; base64 adds a third, so that a page with its text stays below 25 MB
SIDES = (512, 384, 256, 192, 128)  # maximum side of a picture, in pixels: the largest one that fits
SAMPLE = 24  # pictures by which the bytes are estimated


def webp(picture: Image.Image, side: int) -> bytes:
    """A picture (RGB or RGBA) as WebP, at most `side` pixels wide and high."""
    small, buffer = picture.copy(), BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=82, method=2)
    return buffer.getvalue()


def url(picture: Image.Image, side: int) -> str:
    """A picture as a data URL."""
    return f"data:image/webp;base64,{base64.b64encode(webp(picture, side)).decode()}"


def fitting(pictures: Sequence[Image.Image], budget: int = BUDGET) -> tuple[int, int]:
    """The side of pictures and how many of them the budget holds: all, or at the smallest side as many as fit."""
    sample = pictures[:: max(len(pictures) // SAMPLE, 1)] or [Image.new("RGB", (1, 1))]
    mean = 1.0
    for side in SIDES:
        mean = sum(len(webp(p, side)) for p in sample) / len(sample)
        if mean * len(pictures) <= budget:
            return side, len(pictures)
    return SIDES[-1], int(budget / mean)
