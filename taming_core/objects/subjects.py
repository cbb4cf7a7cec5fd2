"""From a photo to a subject: its best-scored object, cut out, as the object encoder expects it."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.errors import TamingError
from taming_core.objects.detection import masks_of
from taming_core.objects.filters import Detector, Segmenter
from taming_core.params.sections import DetectParams, MaterializeParams
from taming_core.photos.closeup import closeup
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.masks import crop_in_photo, cutout

Mask = NDArray[np.bool_]
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
    from taming_core.objects.published import DETECTOR, SEGMENTER
    from taming_core.weights.locate import find

    for spec, role in ((p.detector, DETECTOR), (p.segmenter, SEGMENTER)):
        if spec not in ("mini", "detector"):
            find(spec, role)


def load_finder(p: DetectParams, device: str) -> Finder:
    """The finder with the detector and the segmenter of the params."""
    from taming_core.objects.detector import load_detector
    from taming_core.objects.segmenter import load_segmenter

    by_detector = p.segmenter == "detector"
    segment = None if by_detector else load_segmenter(p.segmenter, device)
    detect = load_detector(
        p.detector, device, p.image_size, p.score_floor, p.max_found, classes=p.classes, with_masks=by_detector
    )
    return finder(detect, segment, p)


def subjects_of(
    objects: Sequence[Sequence[Path]],
    masks: Sequence[Path],
    load: Callable[[], Finder],
    p: MaterializeParams,
    background: str,
) -> list[list[Image.Image]]:
    """The subjects of every object, one for each of its photos.

    Args:
        objects: the photos of each object.
        masks: mask files, one for each photo, or none.
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


def require_masks(photos: Sequence[Path], masks: Sequence[Path]) -> None:
    """Raises TamingError if there are masks, but not one for each photo."""
    if masks and len(masks) != len(photos):
        raise TamingError(f"There are {len(masks)} masks for {len(photos)} photos. Give --mask once for each photo.")


def subject_of(photo: Path, mask_file: Path | None, find: Finder, p: MaterializeParams, background: str) -> Image.Image:
    """The subject (RGBA, square) of a photo: by the mask file, the photo's alpha channel, or `find`.

    Raises:
        TamingError: a file cannot be read, the mask has another size or is empty, or no object is found.
    """
    read = _photo(photo)
    mask = _read_mask(mask_file, read) if mask_file is not None else alpha_mask(read)
    if mask is None:
        mask = next(iter(find(read.image)), None)
    if mask is None:
        raise TamingError(
            f"No object was found in {photo}. Name its mask, white on black and of the photo's size, with --mask."
        )
    frame = cutout if background == "removed" else crop_in_photo
    pixels = closeup(photo, read, mask, p.subject_size, p.subject_fill)
    return Image.fromarray(frame(*pixels, p.subject_size, p.subject_fill))


def alpha_mask(photo: Photo) -> Mask | None:
    """The opaque pixels (H, W) of a photo that is already cut out; None if it is all opaque or all transparent."""
    opaque = photo.opaque
    return opaque if opaque is not None and opaque.any() and not opaque.all() else None


def _read_mask(path: Path, photo: Photo) -> Mask:
    read = _photo(path)
    if (read.width, read.height) != (photo.width, photo.height):
        raise TamingError(f"{path} is {read.width}x{read.height}, the photo is {photo.width}x{photo.height}. Give a "
                          "mask of the photo's size.")  # fmt: skip
    mask = read.image.mean(-1) > 127
    if not mask.any():
        raise TamingError(f"{path} is black all over. Paint the object white.")
    return mask


def _photo(path: Path) -> Photo:
    """The upright photo; raises TamingError if it cannot be decoded."""
    try:
        return read_photo(path)
    except PhotoError as error:
        raise TamingError(f"{path} is not a readable image: {error}. Name another file.") from error
