"""From a photo to a subject: its best-scored object, cut out, as the object encoder expects it."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.errors import TamingError
from taming_core.objects.detection import masks_of
from taming_core.objects.filters import Detector, Segmenter
from taming_core.objects.given_masks import given_mask
from taming_core.params.sections import DetectParams, MaterializeParams
from taming_core.photos.closeup import closeup
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.folder import mask_beside
from taming_core.photos.mask_files import read_mask
from taming_core.photos.masks import Mask, crop_in_photo, cutout
from taming_core.storage.paths import AnyPath

Finder = Callable[[NDArray[np.uint8]], list[Mask]]


def finder(detect: Detector, segment: Segmenter | None, p: DetectParams) -> Finder:
    """A callable from a photo (H, W, 3) to the masks (H, W) of the objects that reach `score`, best score first."""

    def find(image: NDArray[np.uint8]) -> list[Mask]:
        (found,) = detect([image])
        confident = [int(i) for i in np.flatnonzero(found.scores >= p.score)]
        return [mask for mask, _ in masks_of(image, found, confident, segment, p) if mask.any()]

    return find


def require_finder(p: DetectParams) -> None:
    """Raises TamingError if the detector or segmenter of the params is not on this machine and cannot be fetched."""
    from taming_core.objects.published import DETECTOR, segmenter_role
    from taming_core.weights.locate import find

    for spec, role in ((p.detector, DETECTOR), (p.segmenter, segmenter_role(p.segmenter))):
        if spec not in ("mini", "none", "detector"):
            find(spec, role)


def load_finder(p: DetectParams, device: str) -> Finder:
    """The finder with the detector and the segmenter of the params."""
    from taming_core.objects.networks import load_networks

    return finder(*load_networks(p, device), p)


def subjects_of(
    objects: Sequence[Sequence[AnyPath]],
    masks: Sequence[AnyPath],
    load: Callable[[], Finder],
    p: MaterializeParams,
    background: str,
) -> list[list[Image.Image]]:
    """The subjects of every object, one for each of its photos.

    Args:
        objects: the photos of each object.
        masks: mask files, one for each photo, or none: then masks beside the photos are used.
        load: loads detector and segmenter; called only if a photo has neither mask nor transparency.
        p: size and framing of a subject.
        background: `removed`, or `kept` for the object in its photo.

    Raises:
        TamingError: there are masks, but not one for each photo; or see `subject_of`.
    """
    photos = [photo for group in objects for photo in group]
    require_masks(photos, masks)
    load = cache(load)
    pairs = zip(photos, masks or [None] * len(photos), strict=True)
    subjects = (subject_of(photo, mask, lambda image: load()(image), p, background) for photo, mask in pairs)
    return [[next(subjects) for _ in group] for group in objects]


def require_masks(photos: Sequence[AnyPath], masks: Sequence[AnyPath]) -> None:
    """Raises TamingError if there are masks, but not one for each photo."""
    if masks and len(masks) != len(photos):
        raise TamingError(f"There are {len(masks)} masks for {len(photos)} photos. Give --mask once for each photo.")


def require_photos(photos: Sequence[AnyPath], masks: Sequence[AnyPath]) -> bool:
    """Decode every photo and mask, before anything is loaded that takes longer; whether a finder is needed.

    Raises:
        TamingError: a file cannot be read, a mask has another size or is empty, or there is not one for each photo.
    """
    require_masks(photos, masks)
    pairs = zip(photos, masks or [None] * len(photos), strict=True)
    known = [_known_mask(photo, _photo(photo), mask) is not None for photo, mask in pairs]
    return not all(known)


def _known_mask(path: AnyPath, photo: Photo, mask_file: AnyPath | None) -> Mask | None:
    """The mask of the file, beside the photo, or of its alpha channel; None if there is none of them."""
    return _read_mask(mask_file, photo) if mask_file is not None else _mask_of(path, photo)


class NoObjectError(TamingError):
    """A photo in which no object is found."""


def subject_of(
    photo: AnyPath, mask_file: AnyPath | None, find: Finder, p: MaterializeParams, background: str
) -> Image.Image:
    """The subject (RGBA, square) of a photo: by the mask file, a mask beside the photo, its alpha channel, or `find`.

    Raises:
        TamingError: a file cannot be read, or the mask has another size or is empty.
        NoObjectError: no object is found.
    """
    read = _photo(photo)
    mask = _known_mask(photo, read, mask_file)
    if mask is None:
        mask = next(iter(find(read.image)), None)
    if mask is None:
        raise NoObjectError(
            f"No object was found in {photo}. Name its mask, white on black and of the photo's size, with --mask."
        )
    frame = cutout if background == "removed" else crop_in_photo
    pixels = closeup(photo, read, mask, p.subject_size, p.subject_fill)
    return Image.fromarray(frame(*pixels, p.subject_size, p.subject_fill))


def _mask_of(path: AnyPath, photo: Photo) -> Mask | None:
    """The mask beside a photo, or that of its alpha channel; None if there is neither."""
    try:
        found = given_mask(photo, mask_beside(path))
    except PhotoError as error:
        raise TamingError(
            f"The mask beside {path} cannot be used: {error}. Correct it, or name another with --mask."
        ) from error
    return None if found is None else found[0]


def _read_mask(path: AnyPath, photo: Photo) -> Mask:
    read = _photo(path)
    if (read.width, read.height) != (photo.width, photo.height):
        raise TamingError(f"{path} is {read.width}x{read.height}, the photo is {photo.width}x{photo.height}. Give a "
                          "mask of the photo's size.")  # fmt: skip
    try:
        return read_mask(path, photo)
    except PhotoError as error:
        raise TamingError(f"{path} cannot be used: {error}. Paint the object white on black.") from error


def _photo(path: AnyPath) -> Photo:
    """The upright photo; raises TamingError if it cannot be decoded."""
    try:
        return read_photo(path)
    except PhotoError as error:
        raise TamingError(f"{path} is not a readable image: {error}. Name another file.") from error
