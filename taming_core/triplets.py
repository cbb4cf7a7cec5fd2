"""The pictures of one row: target image, mask, and the subject with its background removed (numpy and PIL only).

Source: the training triplets of Jia et al., "Taming Encoder for Zero Fine-tuning Image Customization", 2023.
"""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.config import MaterializeParams
from taming_core.objects import cutout
from taming_core.photo import difference_hash

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open
Pixels = NDArray[np.uint8]


def square(width: int, height: int, box: Box | None = None) -> Box:
    """The largest square of a photo: its centre, shifted just so far that it holds `box`, or the box's middle.

    >>> square(300, 200)
    (50, 0, 250, 200)
    >>> square(300, 200, (260, 10, 290, 40))
    (90, 0, 290, 200)
    """
    side = min(width, height)
    x0, y0, x1, y1 = box or (0, 0, width, height)
    left, top = _start(width, side, x0, x1), _start(height, side, y0, y1)
    return left, top, left + side, top + side


def _start(length: int, side: int, low: int, high: int) -> int:
    """Where a window of `side` begins on a line of `length`, so that it holds low..high, or as much as fits."""
    start = (low + high - side) // 2 if high - low > side else min(max((length - side) // 2, high - side), low)
    return min(max(start, 0), length - side)


def target(image: Pixels, p: MaterializeParams, box: Box | None = None) -> dict[str, Any]:
    """The columns `image` and `view_hash` of a row, from a photo (H, W, 3)."""
    crop = Image.fromarray(image).crop(square(image.shape[1], image.shape[0], box))
    small = crop.resize((p.size, p.size), Image.Resampling.LANCZOS)
    # Colour at full resolution: at a few hundred pixels, shared colour is visible around every edge.
    jpeg = _encoded(small, "JPEG", quality=p.jpeg_quality, subsampling=0)
    return {"image": jpeg, "view_hash": f"{difference_hash(np.asarray(small)):016x}"}


def subject(image: Pixels, mask: NDArray[np.bool_], p: MaterializeParams, box: Box) -> dict[str, Any]:
    """The columns `mask` and `subject` of a row, from a photo (H, W, 3) and an object's mask (H, W).

    Raises:
        ValueError: no pixel of the mask is true.
    """
    crop = Image.fromarray(mask).convert("L").crop(square(image.shape[1], image.shape[0], box))
    small = np.asarray(crop.resize((p.size, p.size), Image.Resampling.BOX)) >= 128
    cut = cutout(image, mask, p.subject_size, p.subject_fill)
    return {
        "mask": _encoded(Image.fromarray(small).convert("L"), "PNG"),
        "subject": _encoded(Image.fromarray(cut), "PNG"),
    }


def _encoded(image: Image.Image, kind: str, **options: int) -> dict[str, Any]:
    """A picture as `datasets` stores it."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}
