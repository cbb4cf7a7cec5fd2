"""The photos of an object, as whole pictures."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from taming_core.errors import TamingError
from taming_core.fingerprints import digest
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.storage.paths import AnyPath


def open_photos(paths: Iterable[AnyPath]) -> list[Image.Image]:
    """The upright photos in files, RGB.

    Raises:
        TamingError: a file cannot be decoded.
    """
    return [_open(path) for path in paths]


def _open(path: AnyPath) -> Image.Image:
    try:
        return Image.fromarray(read_photo(path).image)
    except PhotoError as error:
        raise TamingError(f"{path} is not a readable image: {error}. Name another file.") from error


def photos_digest(photos: Sequence[Image.Image]) -> str:
    """16 hex digits of the photos' sizes and pixels."""
    return digest(part for photo in photos for part in (str(photo.size).encode(), np.asarray(photo).tobytes()))
