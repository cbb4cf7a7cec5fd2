"""Decoding photo files: upright 8-bit sRGB pixels from any format that Pillow or its plugins read."""

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from taming_core.drop_reasons import (
    EMPTY_FILE,
    NOT_AN_IMAGE,
    PHOTO_TOO_SMALL,
    TOO_MANY_PIXELS,
    UNREADABLE,
    with_details,
)
from taming_core.fingerprints import hash_of
from taming_core.params.sections import MAX_PIXELS
from taming_core.photos.colour import to_srgb
from taming_core.photos.files import read_file
from taming_core.photos.formats import missing_decoder
from taming_core.photos.masks import Box
from taming_core.photos.segments import JPEG, less_metadata
from taming_core.storage.paths import AnyPath

open_image = Image.open  # bound early: ultralytics replaces it by one that tries to install plugins
WORKING_SIDE = 2048  # pixels of the longer side: twice the input of a SAM, the largest of the models that see a photo
LARGE = 2**23  # pixels; files that are decoded to more take turns, so that memory does not grow with the threads
LOST_ROWS = 17  # a row of JPEG blocks, and a row that is interpolated with it; a file that ends there is whole enough
UPRIGHT = {  # EXIF orientation -> transpose that turns the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
SideOf = Callable[[int, int], int]  # width and height of a photo -> pixels that the longer side of its image needs
_turns: AbstractContextManager[Any] = threading.Lock()
_opening = threading.Lock()


def take_turns(lock: AbstractContextManager[Any]) -> None:
    """Let large files take turns by this lock, which several processes share."""
    global _turns
    _turns = lock


class PhotoError(Exception):
    """A file that cannot be decoded; the text becomes its drop reason."""


@dataclass(frozen=True)
class Photo:
    """An upright image and the hash of its file."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, the photo or a part of it, scaled down to the side that was asked for
    photo_id: str  # 16 hex digits
    width: int  # pixels of the upright photo in the file
    height: int
    opaque: NDArray[np.bool_] | None = None  # (H, W), where it is not transparent; None without an alpha channel


@dataclass(frozen=True)
class _Wanted:
    """What is wanted of a photo: see `read_photo`."""

    min_side: int
    max_pixels: int
    side_of: SideOf
    box: Box | None


def working_side(_width: int, _height: int) -> int:
    """The longer side, in pixels, of what models see of a photo: never more than `WORKING_SIDE`."""
    return WORKING_SIDE


def read_photo(
    path: AnyPath,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    side_of: SideOf = working_side,
    box: Box | None = None,
) -> Photo:
    """The upright RGB image in a file, or a part of it; the first frame of an animation.

    JPEG files are decoded at a fraction of their size where that suffices. Damaged metadata and a missing end do no
    harm to whole pixels.

    Args:
        path: the file.
        min_side: pixels of the photo's shorter side, at least.
        max_pixels: of the photo, at most.
        side_of: from width and height of the photo to the longer side, in pixels, that its image needs; a larger one
            is scaled down to it, a smaller one stays as it is.
        box: the part, in pixels of the upright photo; None for all of it.

    Raises:
        PhotoError: with the drop reason, if there is no image or it has another size than is allowed.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise PhotoError(with_details(UNREADABLE, error.strerror)) from error
    if not data:
        raise PhotoError(EMPTY_FILE)
    if reason := missing_decoder(data, path.suffix):
        raise PhotoError(reason)
    image, opaque, (width, height) = _decode(data, _Wanted(min_side, max_pixels, side_of, box))
    return Photo(image, hash_of(data), width, height, opaque)


Decoded = tuple[NDArray[np.uint8], NDArray[np.bool_] | None, tuple[int, int]]  # image, opaque, size of the photo


def _decode(data: bytes, wanted: _Wanted) -> Decoded:
    """The pixels of a file as it is, or else with less metadata."""
    try:
        return _pixels(data, wanted)
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on damaged files; it becomes the drop reason
        for bare in less_metadata(data):
            try:
                return _pixels(bare, wanted)
            except PhotoError:
                raise
            except Exception:
                continue
        # Ultralytics' opener raises the second kind.
        if isinstance(error, UnidentifiedImageError | ModuleNotFoundError):
            raise PhotoError(NOT_AN_IMAGE) from error
        raise PhotoError(with_details(UNREADABLE, error)) from error


def _pixels(data: bytes, wanted: _Wanted) -> Decoded:
    """The first frame in the bytes of a file, turned upright, cut to the box, scaled, and as sRGB."""
    image = _opened(data)
    orientation = _orientation(image)
    width, height = image.size[::-1] if orientation in SIDEWAYS else image.size
    if width * height > wanted.max_pixels:
        raise PhotoError(with_details(TOO_MANY_PIXELS, f"{width}x{height}, over detect.max_pixels"))
    if min(width, height) < wanted.min_side:
        raise PhotoError(with_details(PHOTO_TOO_SMALL, f"{width}x{height}"))
    x0, y0, x1, y1 = wanted.box or (0, 0, width, height)
    scale = min(wanted.side_of(width, height) / max(x1 - x0, y1 - y0), 1.0)
    drafted = _draft(image, scale)
    with _turns if drafted[0] * drafted[1] > LARGE else nullcontext():
        image = _loaded(image, data, scale)
        if orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[orientation])
        if wanted.box is not None:
            across, down = image.width / width, image.height / height
            image = image.crop((round(x0 * across), round(y0 * down), round(x1 * across), round(y1 * down)))
        image = _scaled(image, round(max(x1 - x0, y1 - y0) * scale))
    return *to_srgb(image), (width, height)


@contextmanager
def _any_size() -> Generator[None, None, None]:
    """Lifts Pillow's limit of pixels while a file is opened, before which `max_pixels` cannot be applied."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _opened(data: bytes) -> Image.Image:
    with _any_size():
        return open_image(BytesIO(data))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where EXIF is absent or damaged, or does not hold."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # the decoder turns it; only JPEG files inside JPEG XL are as they were (ISO/IEC 18181-2)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in UPRIGHT else 1
    except Exception:  # EXIF is read by code that raises anything on damaged bytes
        return 1


def _draft(image: Image.Image, scale: float) -> tuple[int, int]:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8, if the wanted size remains; returns the size that it will have."""
    if scale < 1:
        image.draft(None, (round(scale * image.width), round(scale * image.height)))
    return image.size


def _loaded(image: Image.Image, data: bytes, scale: float) -> Image.Image:
    """The image with its pixels; those of a file without its end too, if no more than the last rows are lost."""
    try:
        image.load()
        return image
    except OSError:
        whole, lost = _without_end(data, scale) if data.startswith(JPEG) else _as_far_as_decoded(image)
        if whole is None or lost > LOST_ROWS:
            raise
        return whole


def _without_end(data: bytes, scale: float) -> tuple[Image.Image, int]:
    """A JPEG whose end is missing, and how many of its rows depend on what is put there instead."""
    ends = [_opened(data + fill + b"\xff\xd9") for fill in (b"\0" * 64, b"\xff\0" * 64)]  # zero bits, one bits
    for image in ends:
        _draft(image, scale)
        image.load()
    first, second = map(np.asarray, ends)
    differ = np.flatnonzero((first != second).reshape(len(first), -1).any(1))
    return ends[0], len(first) - int(differ[0]) if differ.size else 0


def _as_far_as_decoded(image: Image.Image) -> tuple[Image.Image | None, int]:
    """An image whose decoder ran out of data, and how many of its rows are still empty; None if nothing was decoded."""
    if isinstance(image, ImageFile.ImageFile):
        image.tile = []  # nothing is left to decode
    try:
        rows = np.asarray(image)
    except OSError:
        return None, 0
    return image, int((~rows.reshape(len(rows), -1).any(1)).sum())


def _scaled(image: Image.Image, side: int) -> Image.Image:
    """The image, its longer side scaled down to `side` pixels."""
    if max(image.size) <= side:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    ratio = side / max(image.size)
    size = max(round(image.width * ratio), 1), max(round(image.height * ratio), 1)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
