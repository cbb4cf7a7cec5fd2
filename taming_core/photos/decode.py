"""Photo files: which there are, upright RGB pixels out of any of them, and what the folder says about them."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from taming_core.fingerprints import hash_of

open_image = Image.open  # bound early: ultralytics puts another in its place, which looks for plugins to install
MID_GREY = (128, 128, 128)
UPRIGHT = {  # EXIF orientation -> what turns the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(Exception):
    """A file that gives no picture; the text becomes its drop reason."""


@dataclass(frozen=True)
class Photo:
    """An upright picture and the hash of its file."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    photo_id: str  # 16 hex digits


def read_photo(path: Path, min_side: int = 1) -> Photo:
    """The upright RGB picture in a file; of an animation the first frame.

    Raises:
        PhotoError: with the drop reason, if there is no picture or its shorter side has under `min_side` pixels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"unreadable: {error.strerror}") from error
    image = _decode(data)
    if min(image.size) < min_side:
        raise PhotoError(f"photo too small: {image.width}x{image.height}")
    return Photo(np.array(_to_srgb(image)), hash_of(data))


def _decode(data: bytes) -> Image.Image:
    """The first frame in the bytes of a file, turned upright."""
    if not data:
        raise PhotoError("empty file")
    try:
        image = open_image(BytesIO(data))
        _check_size(image)
        image.load()
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (PhotoError, MemoryError):
        raise
    except (UnidentifiedImageError, ModuleNotFoundError) as error:  # the latter by that other one
        raise PhotoError("not an image" + (": HEIC or video" if data[4:8] == b"ftyp" else "")) from error
    except Image.DecompressionBombError as error:
        raise PhotoError("too many pixels") from error
    except Exception as error:  # decoders raise anything on damaged files; whatever it is becomes the row's reason
        raise PhotoError(f"unreadable: {error}") from error
    return image if turn is None else image.transpose(turn)


def _check_size(image: Image.Image) -> None:
    """Refuse before decoding what would fill the memory."""
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise PhotoError(f"too many pixels: {image.width}x{image.height}")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any kind of pixels as 8-bit sRGB, by the file's colour profile where it has one that is sound."""
    profile = image.info.get("icc_profile")
    image = _without_alpha(_to_8bit(image))
    if profile is None:
        return image.convert("RGB")
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one of another kind of pixels
        return image.convert("RGB")
    return converted or image.convert("RGB")


def _to_8bit(image: Image.Image) -> Image.Image:
    """Grayscale of 16 bits by its full range, so that 65535 becomes 255; other pixels as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise PhotoError(f"unreadable: pixels of kind {image.mode}")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _without_alpha(image: Image.Image) -> Image.Image:
    """No palette and no alpha: what shines through is mid-grey.

    Grey is what the encoder sees around a subject, and neither white nor black artwork vanishes on it.
    """
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (*MID_GREY, 255)), seen).convert("RGB")
    return image.convert("RGB") if image.mode in ("P", "1") else image
