"""The pictures of one row: target image, mask, and the subject with its background removed (numpy and PIL only).

Source: the training triplets of Jia et al., "Taming Encoder for Zero Fine-tuning Image Customization", 2023.
"""

from io import BytesIO
from math import log
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.objects import cutout, mask_box
from taming_core.photo import difference_hash
from taming_core.schema import Row
from taming_core.sections import MaterializeParams

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open
Size = tuple[int, int]  # width and height in pixels
Pixels = NDArray[np.uint8]
Background = Literal["removed", "kept"]


def bucket(width: int, height: int, p: MaterializeParams) -> Size:
    """Width and height of the target that a photo of this size becomes: of the bucket nearest in aspect ratio."""
    shapes = [(p.size, p.size)] if p.buckets is None else [(w, h) for w, h in p.buckets]
    return min(shapes, key=lambda shape: abs(log(width / height) - log(shape[0] / shape[1])))


def window(width: int, height: int, shape: Size, box: Box | None = None) -> Box:
    """The largest part of a photo that is as wide to its height as `shape`.

    It is the photo's centre, shifted just so far that it holds `box`, or the box's middle.

    >>> window(300, 200, (64, 64))
    (50, 0, 250, 200)
    >>> window(300, 200, (64, 64), (260, 10, 290, 40))
    (90, 0, 290, 200)
    >>> window(300, 200, (96, 32))
    (0, 50, 300, 150)
    """
    wide = min(width, max(1, round(height * shape[0] / shape[1])))
    high = min(height, max(1, round(width * shape[1] / shape[0])))
    x0, y0, x1, y1 = box or (0, 0, width, height)
    left, top = _start(width, wide, x0, x1), _start(height, high, y0, y1)
    return left, top, left + wide, top + high


def _start(length: int, side: int, low: int, high: int) -> int:
    """Where a window of `side` begins on a line of `length`, so that it holds low..high, or as much as fits."""
    start = (low + high - side) // 2 if high - low > side else min(max((length - side) // 2, high - side), low)
    return min(max(start, 0), length - side)


def target(image: Pixels, p: MaterializeParams, box: Box | None = None) -> dict[str, Any]:
    """The columns `image`, `width`, `height` and `view_hash` of a row, from a photo (H, W, 3)."""
    small = _cropped(Image.fromarray(image), p, box, Image.Resampling.LANCZOS)
    # Colour at full resolution: at a few hundred pixels, shared colour is visible around every edge.
    jpeg = _encoded(small, "JPEG", quality=p.jpeg_quality, subsampling=0)
    size = {"width": small.width, "height": small.height}
    return {"image": jpeg, **size, "view_hash": f"{difference_hash(np.asarray(small)):016x}"}


def _cropped(photo: Image.Image, p: MaterializeParams, box: Box | None, filter: Image.Resampling) -> Image.Image:
    """The photo, or a picture of its size, cut and resized to its bucket."""
    shape = bucket(*photo.size, p)
    return photo.crop(window(*photo.size, shape, box)).resize(shape, filter)


def subject(image: Pixels, mask: NDArray[np.bool_], p: MaterializeParams, box: Box) -> dict[str, Any]:
    """The columns `mask` and `subject` of a row, from a photo (H, W, 3) and an object's mask (H, W).

    Raises:
        ValueError: no pixel of the mask is true.
    """
    small = np.asarray(_cropped(Image.fromarray(mask).convert("L"), p, box, Image.Resampling.BOX)) >= 128
    cut = cutout(image, mask, p.subject_size, p.subject_fill)
    return {
        "mask": _encoded(Image.fromarray(small).convert("L"), "PNG"),
        "subject": _encoded(Image.fromarray(cut), "PNG"),
    }


def seen(row: Row, background: Background) -> Image.Image:
    """What the object encoder sees of a row's object, RGBA and square: cut out, or in its photo."""
    return opened(row["subject"]) if background == "removed" else in_photo(row)


def in_photo(row: Row) -> Image.Image:
    """The object in its photo, framed as its cut-out frames it; transparent beyond the photo's edge."""
    cut, photo = opened(row["subject"]), opened(row["image"])
    box = frame(mask_of(row), np.asarray(cut)[..., 3] >= 128)
    room = int(np.ceil(np.abs(box).max()))
    roomy = photo.crop((-room, -room, photo.width + room, photo.height + room))
    left, top, right, bottom = (float(v) for v in box + room)
    return roomy.resize(cut.size, Image.Resampling.HAMMING, (left, top, right, bottom))


def frame(mask: NDArray[np.bool_], shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The square (x0, y0, x1, y1) around the object of `mask` (H, W) that leaves as much room as in `shown` (h, h)."""
    x0, y0, x1, y1 = mask_box(mask) if mask.any() else (0, 0, mask.shape[1], mask.shape[0])
    left, top, right, bottom = mask_box(shown) if shown.any() else (0, 0, shown.shape[1], shown.shape[0])
    side = max(x1 - x0, y1 - y0) * shown.shape[0] / max(right - left, bottom - top)
    centre = np.array([x0 + x1, y0 + y1], np.float32) / 2
    return np.concatenate([centre - side / 2, centre + side / 2]).astype(np.float32)


def opened(picture: bytes) -> Image.Image:
    """A picture as RGBA."""
    return Image.open(BytesIO(picture)).convert("RGBA")


def mask_of(row: Row) -> NDArray[np.bool_]:
    """Where the object is in the row's image (H, W)."""
    return np.asarray(Image.open(BytesIO(row["mask"])).convert("L")) >= 128


def _encoded(image: Image.Image, kind: str, **options: int) -> dict[str, Any]:
    """A picture as `datasets` stores it."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}
