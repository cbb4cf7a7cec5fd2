"""Masks that a person gives: pictures that are white where the object is, and the alpha channels of photos."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.drop_reasons import MASK_EMPTY, MASK_SHAPE, MASK_UNREADABLE, with_details
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import name_of
from taming_core.photos.masks import Mask
from taming_core.storage.paths import AnyPath

ASPECT_TOLERANCE = 0.02  # relative; sides are whole pixels
MOST_OPAQUE = 0.9  # of a cut-out; what lacks less has round corners, or a rim where a photo was straightened
GRAY_TOLERANCE = 24  # of 255, between channels; JPEG colours gray a little


def read_mask(path: AnyPath, photo: Photo) -> Mask:
    """The mask (H, W) in a file, scaled to the image of its photo.

    The mask is the alpha channel where it varies, else gray from 128 on; where all gray is 0 and 1, it is a label.

    Raises:
        PhotoError: with the drop reason, if the file is no black and white picture, is of another shape, or is empty.
    """
    name = name_of(Path(path.name))
    try:
        read = read_photo(path)
        gray = _mask_values(read)
    except PhotoError as error:
        raise PhotoError(with_details(MASK_UNREADABLE, f"{name}, {error}")) from error
    if abs(read.width * photo.height / (read.height * photo.width) - 1) > ASPECT_TOLERANCE:
        sizes = f"{name} is {read.width}x{read.height}, the photo {photo.width}x{photo.height}"
        raise PhotoError(with_details(MASK_SHAPE, sizes))
    mask, shape = gray > (0 if gray.max() <= 1 else 127), photo.image.shape[:2]
    if mask.shape != shape:
        mask = np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))
    if not mask.any():
        raise PhotoError(with_details(MASK_EMPTY, name))
    return mask


def _mask_values(read: Photo) -> NDArray[np.uint8]:
    """The alpha channel (H, W) of a picture if it varies, else its gray."""
    alpha = alpha_mask(read)
    if alpha is not None:
        return alpha * np.uint8(255)
    if int((read.image.max(-1).astype(int) - read.image.min(-1)).max()) > GRAY_TOLERANCE:
        raise PhotoError("it has colours")
    return read.image[..., 1]


def alpha_mask(photo: Photo) -> Mask | None:
    """The opaque pixels (H, W) of a photo that is already cut out; None if it is all transparent, or hardly."""
    opaque = photo.opaque
    return opaque if opaque is not None and opaque.any() and opaque.mean() <= MOST_OPAQUE else None
