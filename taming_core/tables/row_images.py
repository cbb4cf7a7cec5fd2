"""The images of a row, decoded: image, mask, and the input of the object encoder."""

from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.photos.masks import mask_box
from taming_core.tables.schema import Row

Background = Literal["removed", "kept"]


def encoder_image(row: Row, background: Background) -> Image.Image:
    """The object encoder's input image for a row, RGBA and square: the cut-out, or the object in its photo."""
    return open_rgba(row["subject"]) if background == "removed" else crop_in_photo(row)


def crop_in_photo(row: Row) -> Image.Image:
    """The object in its photo, framed as its cut-out; RGBA, transparent beyond the photo's edge."""
    cut, photo = open_rgba(row["subject"]), open_rgba(row["image"])
    box = object_frame(open_mask(row), np.asarray(cut)[..., 3] >= 128)
    margin = int(np.ceil(np.abs(box).max()))
    padded = photo.crop((-margin, -margin, photo.width + margin, photo.height + margin))
    left, top, right, bottom = (float(v) for v in box + margin)
    return padded.resize(cut.size, Image.Resampling.HAMMING, (left, top, right, bottom))


def object_frame(mask: NDArray[np.bool_], cutout: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The square (x0, y0, x1, y1) around the object of `mask` (H, W) with the margins of the mask `cutout` (h, h)."""
    x0, y0, x1, y1 = mask_box(mask) if mask.any() else (0, 0, mask.shape[1], mask.shape[0])
    left, top, right, bottom = mask_box(cutout) if cutout.any() else (0, 0, cutout.shape[1], cutout.shape[0])
    side = max(x1 - x0, y1 - y0) * cutout.shape[0] / max(right - left, bottom - top)
    centre = np.array([x0 + x1, y0 + y1], np.float32) / 2
    return np.concatenate([centre - side / 2, centre + side / 2]).astype(np.float32)


def open_rgba(data: bytes) -> Image.Image:
    """An encoded image as RGBA."""
    return Image.open(BytesIO(data)).convert("RGBA")


def open_mask(row: Row) -> NDArray[np.bool_]:
    """The object's mask (H, W) in the row's image."""
    return np.asarray(Image.open(BytesIO(row["mask"])).convert("L")) >= 128
