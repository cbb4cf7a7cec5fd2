"""Masks that a person gives: pictures that are white where the object is, and the alpha channels of photos."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taming_core.drop_reasons import MASK_EMPTY, MASK_SHAPE, MASK_UNREADABLE, with_details
from taming_core.photos.decode import PhotoError, open_image, read_photo
from taming_core.photos.files import file_name
from taming_core.photos.masks import Mask, Size

ASPECT_TOLERANCE = 0.02  # relative; sides are whole pixels
GRAY_TOLERANCE = 24  # of 255, between channels; JPEG colours gray a little


def read_mask(path: Path, size: Size) -> Mask:
    """The mask (H, W) in a file, scaled to the photo's `size` (width, height).

    The mask is the alpha channel where it varies, else gray from 128 on; where all gray is 0 and 1, it is a label.

    Raises:
        PhotoError: with the drop reason, if the file is no black and white picture, is of another shape, or is empty.
    """
    name = file_name(path, path.parent)
    try:
        gray = _mask_values(path)
    except PhotoError as error:
        raise PhotoError(with_details(MASK_UNREADABLE, f"{name}, {error}")) from error
    height, width = gray.shape
    if abs(width * size[1] / (height * size[0]) - 1) > ASPECT_TOLERANCE:
        raise PhotoError(with_details(MASK_SHAPE, f"{name} is {width}x{height}, the photo {size[0]}x{size[1]}"))
    mask = gray > (0 if gray.max() <= 1 else 127)
    if (width, height) != size:
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    if not mask.any():
        raise PhotoError(with_details(MASK_EMPTY, name))
    return mask


def _mask_values(path: Path) -> NDArray[np.uint8]:
    """The alpha channel (H, W) of a picture if it varies, else its gray."""
    image = read_photo(path).image
    alpha = _alpha(path)
    if alpha is not None and alpha.min() < alpha.max():
        return alpha
    if int((image.max(-1).astype(int) - image.min(-1)).max()) > GRAY_TOLERANCE:
        raise PhotoError("it has colours")
    return image[..., 1]


def alpha_mask(photo: Path) -> Mask | None:
    """The opaque pixels (H, W) of a photo that is already cut out; None if it is all opaque or all transparent."""
    alpha = _alpha(photo)
    opaque = None if alpha is None else alpha > 127
    return opaque if opaque is not None and opaque.any() and not opaque.all() else None


def _alpha(path: Path) -> NDArray[np.uint8] | None:
    """The alpha channel (H, W) of a readable, upright photo."""
    with open_image(path) as opened:
        if not opened.has_transparency_data:
            return None
        try:
            upright = ImageOps.exif_transpose(opened)
        except Exception:  # Pillow raises anything on damaged EXIF, as in photos.decode
            upright = opened
        return np.asarray(upright.convert("RGBA"))[..., 3]
