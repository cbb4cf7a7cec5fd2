"""The pictures of a row, decoded: image, mask, and what the object encoder sees."""

from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.photos.masks import mask_box
from taming_core.tables.schema import Row

Background = Literal["removed", "kept"]


def encoder_image(row: Row, background: Background) -> Image.Image:
    """What the object encoder sees of a row's object, RGBA and square: cut out, or in its photo."""
    return open_rgba(row["subject"]) if background == "removed" else in_photo(row)


def in_photo(row: Row) -> Image.Image:
    """The object in its photo, framed as its cut-out frames it; transparent beyond the photo's edge."""
    cut, photo = open_rgba(row["subject"]), open_rgba(row["image"])
    box = object_frame(open_mask(row), np.asarray(cut)[..., 3] >= 128)
    room = int(np.ceil(np.abs(box).max()))
    roomy = photo.crop((-room, -room, photo.width + room, photo.height + room))
    left, top, right, bottom = (float(v) for v in box + room)
    return roomy.resize(cut.size, Image.Resampling.HAMMING, (left, top, right, bottom))


def object_frame(mask: NDArray[np.bool_], shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The square (x0, y0, x1, y1) around the object of `mask` (H, W) that leaves as much room as in `shown` (h, h)."""
    x0, y0, x1, y1 = mask_box(mask) if mask.any() else (0, 0, mask.shape[1], mask.shape[0])
    left, top, right, bottom = mask_box(shown) if shown.any() else (0, 0, shown.shape[1], shown.shape[0])
    side = max(x1 - x0, y1 - y0) * shown.shape[0] / max(right - left, bottom - top)
    centre = np.array([x0 + x1, y0 + y1], np.float32) / 2
    return np.concatenate([centre - side / 2, centre + side / 2]).astype(np.float32)


def open_rgba(picture: bytes) -> Image.Image:
    """A picture as RGBA."""
    return Image.open(BytesIO(picture)).convert("RGBA")


def open_mask(row: Row) -> NDArray[np.bool_]:
    """Where the object is in the row's image (H, W)."""
    return np.asarray(Image.open(BytesIO(row["mask"])).convert("L")) >= 128
