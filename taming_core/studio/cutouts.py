"""The photos of the tab Try as the encoder sees them, with masks where a person corrected them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from taming_core.errors import TamingError
from taming_core.figures.contact_sheet import draw_outlines
from taming_core.files import replacing
from taming_core.fingerprints import digest
from taming_core.params.load import load_params
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.mask_files import read_mask
from taming_core.photos.masks import Mask, encode_mask, fit_mask
from taming_core.studio import pointing
from taming_core.studio.places import MASKS
from taming_core.studio.pointing import LARGE, Mark

if TYPE_CHECKING:
    from taming_core.studio.drawing import Model, Reference  # imports torch

TILE = 256  # pixels of the longer side

Masks = Mapping[str, str]  # names of files in `MASKS`, by the keys of photos


@dataclass(frozen=True)
class Cutout:
    """A photo that can be read, and its object as it is found without a person."""

    key: str
    photo: Path
    picture: Image.Image  # the subject; the photo itself where there is a reason
    reason: str | None = None  # why there is no subject


def keyed(files: Sequence[str]) -> list[str]:
    """A key for each file, of its own also where one is there twice.

    >>> keyed(["a.png", "b.png", "a.png"])
    ['0 a.png', '0 b.png', '1 a.png']
    """
    return [f"{files[:n].count(file)} {file}" for n, file in enumerate(files)]


def find(files: Sequence[str], model: "Model") -> tuple[list[Cutout], list[str]]:
    """What is found in the photos that can be read, and why nothing is found in others."""
    if not files:
        return [], []
    from taming_core.studio.drawing import Reference, subjects_or_reasons  # imports torch

    photos = [Path(file) for file in files]
    found = subjects_or_reasons([Reference(photo) for photo in photos], model)
    cutouts = [_cutout(*parts) for parts in zip(keyed(files), photos, found, strict=True)]
    return [c for c in cutouts if c is not None], [reason for reason in found if isinstance(reason, str)]


def _cutout(key: str, photo: Path, found: Image.Image | str) -> Cutout | None:
    """A photo and what was found in it; None if it cannot be read."""
    if not isinstance(found, str):
        return Cutout(key, photo, found)
    try:
        small = read_photo(photo, side_of=lambda _width, _height: TILE).image
    except PhotoError:
        return None
    return Cutout(key, photo, Image.fromarray(small), found)


def references(cutouts: Sequence[Cutout], masks: Masks) -> list["Reference"]:
    """What is drawn: the photos with an object, each with the mask that a person gave it.

    Raises:
        TamingError: there are photos, but no object is found or marked in any.
    """
    from taming_core.studio.drawing import Reference  # imports torch

    usable = [c for c in cutouts if c.reason is None or c.key in masks]
    if cutouts and not usable:
        raise TamingError(str(cutouts[0].reason))
    return [Reference(c.photo, mask_file(c, masks)) for c in usable]


def mask_file(cutout: Cutout, masks: Masks) -> Path | None:
    """The mask that a person gave a photo."""
    name = masks.get(cutout.key)
    return None if name is None else MASKS / Path(name).name


def pictures(cutouts: Sequence[Cutout], masks: Masks, model: "Model") -> list[tuple[Image.Image, str]]:
    """The subject of each photo with its mask, or the photo itself without one; with a caption.

    Raises:
        TamingError: a photo or its mask cannot be read any more.
    """
    if not masks:
        return [(c.picture, captioned(c, masks)) for c in cutouts]
    from taming_core.studio.drawing import Reference, background_of, subject_image  # imports torch

    background = background_of(model)

    def picture(c: Cutout) -> Image.Image:
        file = mask_file(c, masks)
        return c.picture if file is None else subject_image(Reference(c.photo, file), background)

    return [(picture(c), captioned(c, masks)) for c in cutouts]


def captioned(cutout: Cutout, masks: Masks) -> str:
    """The name of a photo, and whether its object is still to be marked."""
    return cutout.photo.name if cutout.reason is None or cutout.key in masks else f"no object: {cutout.photo.name}"


def read(photo: Path) -> Photo:
    """The photo as models see it.

    Raises:
        TamingError: it cannot be read.
    """
    try:
        return read_photo(photo)
    except PhotoError as error:
        raise TamingError(f"{photo} is not a readable image: {error}. Name another file.") from error


def large(cutout: Cutout, masks: Masks) -> Image.Image:
    """A photo to point into, with the outline of the mask that a person gave it.

    Raises:
        TamingError: the photo cannot be read.
    """
    photo = read(cutout.photo)
    file = mask_file(cutout, masks)
    mask = None if file is None or not file.is_file() else read_mask(file, photo)
    return draw_outlines(photo.image, mask, None, LARGE)


def mask_at(photo: Photo, marks: Sequence[Mark], name: str, device: str) -> Mask | None:
    """The mask where a person pointed, by the segmenter of the params; None of a single corner.

    Raises:
        TamingError: the segmenter cannot be prompted like this, or sees nothing there.
    """
    mask = pointing.mask_of(photo.image, marks, load_params(None).detect, device)
    if mask is not None and not mask.any():
        raise TamingError(f"The mask of the object in {name} is empty. Mark the object with points or a box.")
    return mask


def save_mask(mask: Mask, photo: Photo) -> str:
    """Write a mask in the size of its photo, as `taming generate --mask` takes it; the name of the file."""
    png = encode_mask(fit_mask(np.asarray(mask, np.bool_), photo.width, photo.height))
    file = MASKS / f"{digest([png])}.png"
    with replacing(file) as part:
        part.write_bytes(png)
    return file.name
