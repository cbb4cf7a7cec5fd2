"""Decoding photo files: upright 8-bit sRGB pixels from any format that Pillow reads."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from taming_core.drop_reasons import (
    EMPTY_FILE,
    NOT_AN_IMAGE,
    PHOTO_TOO_SMALL,
    TOO_MANY_PIXELS,
    UNREADABLE,
    with_details,
)
from taming_core.fingerprints import hash_of
from taming_core.photos.files import read_file

open_image = Image.open  # bound early: ultralytics replaces it by one that tries to install plugins
MID_GREY = (128, 128, 128)
UPRIGHT = {  # EXIF orientation -> transpose that turns the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(Exception):
    """A file that cannot be decoded; the text becomes its drop reason."""


@dataclass(frozen=True)
class Photo:
    """An upright image and the hash of its file."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    photo_id: str  # 16 hex digits


def read_photo(path: Path, min_side: int = 1) -> Photo:
    """The upright RGB image in a file; the first frame of an animation.

    Raises:
        PhotoError: with the drop reason, if there is no image or its shorter side is below `min_side` pixels.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise PhotoError(with_details(UNREADABLE, error.strerror)) from error
    image = _decode(data)
    if min(image.size) < min_side:
        raise PhotoError(with_details(PHOTO_TOO_SMALL, f"{image.width}x{image.height}"))
    return Photo(np.array(_to_srgb(image)), hash_of(data))


def _decode(data: bytes) -> Image.Image:
    """The first frame in the bytes of a file, turned upright."""
    if not data:
        raise PhotoError(EMPTY_FILE)
    try:
        image = open_image(BytesIO(data))
        _check_size(image)
        image.load()
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (PhotoError, MemoryError):
        raise
    except (UnidentifiedImageError, ModuleNotFoundError) as error:  # the latter by ultralytics' opener
        raise PhotoError(
            with_details(NOT_AN_IMAGE, "HEIC or video") if data[4:8] == b"ftyp" else NOT_AN_IMAGE
        ) from error
    except Image.DecompressionBombError as error:
        raise PhotoError(TOO_MANY_PIXELS) from error
    except Exception as error:  # decoders raise anything on damaged files; it becomes the drop reason
        raise PhotoError(with_details(UNREADABLE, error)) from error
    return image if turn is None else image.transpose(turn)


def _check_size(image: Image.Image) -> None:
    """Raises PhotoError before decoding an image that would fill the memory."""
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise PhotoError(with_details(TOO_MANY_PIXELS, f"{image.width}x{image.height}"))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Pixels of any mode as 8-bit sRGB, converted by the file's colour profile if it has a valid one."""
    cms: Any = ImageCms  # createProfile is partly untyped
    profile = image.info.get("icc_profile")
    image = _flatten_alpha(_to_8bit(image))
    if profile is None:
        return image.convert("RGB")
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), cms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one for another pixel mode
        return image.convert("RGB")
    return converted or image.convert("RGB")


def _to_8bit(image: Image.Image) -> Image.Image:
    """16-bit grayscale scaled by its full range (65535 becomes 255); other modes unchanged."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise PhotoError(with_details(UNREADABLE, f"pixels of kind {image.mode}"))
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _flatten_alpha(image: Image.Image) -> Image.Image:
    """Palette and alpha removed, composited over mid-grey.

    The encoder sees subjects on the same grey, and neither white nor black artwork vanishes on it.
    """
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*MID_GREY, 255)), rgba).convert("RGB")
    return image.convert("RGB") if image.mode in ("P", "1") else image
