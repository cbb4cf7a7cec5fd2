"""From a photo to a subject: the surest object in it, cut out, as the object encoder takes it."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taming_core.errors import TamingError
from taming_core.objects.detection import Detector, Segmenter, measure_objects
from taming_core.params.sections import DetectParams, MaterializeParams
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.masks import cutout, in_photo

Mask = NDArray[np.bool_]
Finder = Callable[[NDArray[np.uint8]], list[Mask]]


def finder(detect: Detector, segment: Segmenter | None, p: DetectParams) -> Finder:
    """A callable from a photo (H, W, 3) to the masks (H, W) of the objects that reach `score`, the surest first."""

    def find(image: NDArray[np.uint8]) -> list[Mask]:
        masks = [o.mask for o in measure_objects(image, detect([image])[0], segment, p)]
        return [m for m in masks if m is not None and m.any()]

    return find


def require_finder(p: DetectParams) -> None:
    """Raises TamingError if the detector or the segmenter of the params is not here and cannot be fetched."""
    from taming_core.objects.published import DETECTOR, SEGMENTER
    from taming_core.weights.locate import find

    for spec, role in ((p.detector, DETECTOR), (p.segmenter, SEGMENTER)):
        if spec not in ("mini", "detector"):
            find(spec, role)


def load_finder(p: DetectParams, device: str) -> Finder:
    """The finder that works with the detector and the segmenter of the params."""
    from taming_core.objects.detector import load_detector
    from taming_core.objects.segmenter import load_segmenter

    own = p.segmenter == "detector"
    segment = None if own else load_segmenter(p.segmenter, device)
    detect = load_detector(
        p.detector, device, p.image_size, p.score_floor, p.max_found, classes=p.classes, with_masks=own
    )
    return finder(detect, segment, p)


def subjects_of(
    photos: Sequence[Path], masks: Sequence[Path], load: Callable[[], Finder], p: MaterializeParams, background: str
) -> list[Image.Image]:
    """The subjects of all photos; the finder is loaded only if a photo has neither mask nor transparency.

    With the `background` kept they are pictures of the object in its photo.

    Raises:
        TamingError: there are masks, but not one for each photo.
    """
    require_masks(photos, masks)
    load = cache(load)
    pairs = zip(photos, masks or [None] * len(photos), strict=True)
    return [subject_of(photo, mask, lambda image: load()(image), p, background) for photo, mask in pairs]


def require_masks(photos: Sequence[Path], masks: Sequence[Path]) -> None:
    """Raises TamingError if there are masks, but not one for each photo."""
    if masks and len(masks) != len(photos):
        raise TamingError(f"There are {len(masks)} masks for {len(photos)} photos. Give --mask once for each photo.")


def subject_of(photo: Path, mask: Path | None, find: Finder, p: MaterializeParams, background: str) -> Image.Image:
    """The subject (RGBA, square) of a photo: by the mask file, by the photo's own transparency, or as `find` sees it.

    Raises:
        TamingError: a file cannot be read, the mask is of another size or empty, or nothing is found.
    """
    image = _pixels(photo)
    shown = _mask_file(mask, image) if mask is not None else own_mask(photo)
    if shown is None:
        shown = next(iter(find(image)), None)
    if shown is None:
        raise TamingError(
            f"No object was found in {photo}. Name its mask, white on black and of the photo's size, with --mask."
        )
    picture = cutout if background == "removed" else in_photo
    return Image.fromarray(picture(image, shown, p.subject_size, p.subject_fill))


def own_mask(photo: Path) -> Mask | None:
    """Where a photo is opaque (H, W), if it has been cut out already: something is clear, and something is not."""
    with Image.open(photo) as opened:
        if not opened.has_transparency_data:
            return None
        upright = ImageOps.exif_transpose(opened)
        opaque = np.asarray(upright.convert("RGBA"))[..., 3] > 127
    return opaque if opaque.any() and not opaque.all() else None


def _mask_file(path: Path, image: NDArray[np.uint8]) -> Mask:
    shown = _pixels(path).mean(-1) > 127
    if shown.shape != image.shape[:2]:
        (h, w), (height, width) = shown.shape, image.shape[:2]
        raise TamingError(f"{path} is {w}x{h}, the photo is {width}x{height}. Give a mask of the photo's size.")
    if not shown.any():
        raise TamingError(f"{path} is black all over. Paint the object white.")
    return shown


def _pixels(path: Path) -> NDArray[np.uint8]:
    """The upright photo (H, W, 3); what is wrong with it is said to the user."""
    try:
        return read_photo(path).image
    except PhotoError as error:
        raise TamingError(f"{path} gives no picture: {error}. Name another file.") from error
