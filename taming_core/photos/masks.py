"""Geometry of boxes and masks: crops, cut-outs, PNG encoding (numpy and PIL only)."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the photo, half-open
Size = tuple[int, int]  # width and height in pixels
Mask = NDArray[np.bool_]  # (H, W)

GREY = 128  # behind a cut-out that a model sees, as in training


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A mask (H, W) as a 1-bit PNG; `decode_mask` is its inverse."""
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def decode_mask(png: bytes) -> NDArray[np.bool_]:
    """The mask (H, W) in a PNG that `encode_mask` made."""
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("1"), dtype=np.bool_)


def fit_mask(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """A mask (H, W) scaled to an image of the same photo, of another size."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).convert("L").resize((width, height), Image.Resampling.BILINEAR)) > 127


def scale_box(box: Sequence[float], size: Size, to: Size) -> Box:
    """A box in an image of one size, in the pixels of the same image at another size, rounded outwards.

    >>> scale_box((10, 10, 21, 20), (100, 50), (50, 25))
    (5, 5, 11, 10)
    """
    across, down = to[0] / size[0], to[1] / size[1]
    x0, y0, x1, y1 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    return floor(x0), floor(y0), min(ceil(x1), to[0]), min(ceil(y1), to[1])


def mask_box(mask: NDArray[np.bool_]) -> Box:
    """The tight box (x0, y0, x1, y1), half-open, of the true pixels of a mask (H, W).

    >>> mask_box(np.array([[0, 0, 0], [0, 1, 1]], dtype=bool))
    (1, 1, 3, 2)

    Raises:
        ValueError: no pixel is true.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("the mask is empty")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_iou(box: Sequence[float], other: Sequence[float]) -> float:
    """The intersection over union of two boxes.

    >>> box_iou((0, 0, 10, 10), (5.0, 0.0, 15.0, 10.0))
    0.3333333333333333
    """
    a, b = np.array(box, np.float64), np.array(other, np.float64)
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    areas = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])
    return float(shared / (areas - shared))


def cutout(image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, fill: float) -> NDArray[np.uint8]:
    """The subject: the object of `mask` (H, W) cut out of `image` (H, W, 3), centred in a transparent square.

    The object's longer side is `fill` times the square's side, to within a pixel of the photo. Returns RGBA uint8
    (size, size, 4), resized with premultiplied alpha, so that no background bleeds over the edge.

    Raises:
        ValueError: no pixel of the mask is true.
    """
    x0, y0, x1, y1 = mask_box(mask)
    width, height = x1 - x0, y1 - y0
    side = max(width, height, round(max(width, height) / fill))
    left, top = (side - width) // 2, (side - height) // 2
    square = np.zeros((side, side, 4), np.uint8)
    square[top : top + height, left : left + width, :3] = image[y0:y1, x0:x1]
    square[top : top + height, left : left + width, 3] = mask[y0:y1, x0:x1] * np.uint8(255)
    # PIL resizes RGBA premultiplied. Filters sharper than Hamming's overshoot and draw a bright rim at the edge.
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.HAMMING))


def cutout_on_grey(image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, fill: float) -> NDArray[np.uint8]:
    """`cutout` on mid-grey, as the models see an object without its background; RGB uint8 (size, size, 3).

    Raises:
        ValueError: no pixel of the mask is true.
    """
    subject = cutout(image, mask, size, fill).astype(np.float32)
    alpha = subject[..., 3:] / 255
    return np.rint(subject[..., :3] * alpha + GREY * (1 - alpha)).astype(np.uint8)


def crop_in_photo(image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, fill: float) -> NDArray[np.uint8]:
    """The object of `mask` (H, W) with its surroundings in the photo (H, W, 3), framed as in `cutout`.

    Returns RGBA uint8 (size, size, 4), transparent beyond the photo's edge.
    """
    x0, y0, x1, y1 = mask_box(mask)
    width, height = x1 - x0, y1 - y0
    side = max(width, height, round(max(width, height) / fill))
    left, top = x0 - (side - width) // 2, y0 - (side - height) // 2
    square = Image.fromarray(image).convert("RGBA").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.HAMMING))


def window(width: int, height: int, shape: Size, box: Sequence[int] | None = None) -> Box:
    """The largest crop of a photo with the aspect ratio of `shape`.

    It is centred, then shifted as little as needed to contain `box`, or the middle of a box that is larger.

    >>> window(300, 200, (64, 64))
    (50, 0, 250, 200)
    >>> window(300, 200, (64, 64), (260, 10, 290, 40))
    (90, 0, 290, 200)
    >>> window(300, 200, (96, 32))
    (0, 50, 300, 150)
    """
    crop_width = min(width, max(1, round(height * shape[0] / shape[1])))
    crop_height = min(height, max(1, round(width * shape[1] / shape[0])))
    x0, y0, x1, y1 = box or (0, 0, width, height)
    left, top = _start(width, crop_width, x0, x1), _start(height, crop_height, y0, y1)
    return left, top, left + crop_width, top + crop_height


def _start(length: int, side: int, low: int, high: int) -> int:
    """The start of a window of `side` in `length` that contains low..high, or as much of it as fits."""
    start = (low + high - side) // 2 if high - low > side else min(max((length - side) // 2, high - side), low)
    return min(max(start, 0), length - side)
