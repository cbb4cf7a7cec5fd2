"""The pictures of the tab Data, and masks where a person points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.drop_reasons import PHOTO_CHANGED
from taming_core.errors import TamingError
from taming_core.figures.contact_sheet import draw_outlines, text_tile
from taming_core.params.load import load_params
from taming_core.params.sections import DetectParams
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import photo_path
from taming_core.photos.masks import Mask, decode_mask, fit_mask, scale_box
from taming_core.studio import pointing
from taming_core.studio.data_table import Chosen, Row
from taming_core.studio.pointing import Mark

RAW = Path("data/raw")
TILE = 256  # pixels of the longer side


def tile(project: Path, row: Row) -> Image.Image:
    """A small picture with the outlines of box and mask; the reason in words if the photo cannot be read."""
    return picture(project, row, TILE)


def picture(project: Path, row: Row, side: int, mask: Mask | None = None) -> Image.Image:
    """The photo of a row with the outlines of its box and its mask, or of another mask.

    Args:
        project: folder.
        row: of the table of objects, with its mask.
        side: pixels of the longer side.
        mask: (H, W), in the place of the row's own, which goes without a box.
    """
    try:
        photo = read_photo(photo_path(project / RAW, row["file_name"]), side_of=lambda _width, _height: side)
    except PhotoError as error:
        return text_tile(str(error), side)
    if photo.photo_id != row["photo_id"]:
        return text_tile(PHOTO_CHANGED, side)
    size = photo.image.shape[1], photo.image.shape[0]
    shown = mask if mask is not None else decode_mask(row["mask_png"]) if row["mask_png"] else None
    fitted = None if shown is None else fit_mask(shown, *size)
    box = row["box_xyxy"] if mask is None else None
    return draw_outlines(photo.image, fitted, scale_box(box, (photo.width, photo.height), size) if box else None, side)


def mask_at(project: Path, chosen: Chosen, marks: Sequence[Mark]) -> Mask | None:
    """The mask where a person pointed, by the segmenter of the project's params; None of a single corner.

    Raises:
        TamingError: the photo cannot be read, or has changed; or the segmenter cannot be prompted like this.
    """
    return pointing.mask_of(_photo(project, chosen.row), marks, _detect_params(project), "auto")


def mask_of_box(project: Path, row: Row) -> Mask:
    """The mask of an object in its box, as `taming detect` makes it.

    Raises:
        TamingError: as `mask_at`.
    """
    from taming_core.objects.prompted_masks import MaskPrompt  # imports torch

    image = _photo(project, row)
    size = image.shape[1], image.shape[0]
    box = scale_box(row["box_xyxy"], (row["photo_width"], row["photo_height"]), size)
    return pointing.segment(image, MaskPrompt(box_xyxy=box), _detect_params(project))


def _detect_params(project: Path) -> DetectParams:
    """The section `detect` of the project's params."""
    file = project / "params.yaml"
    return load_params(file if file.is_file() else None).detect


def _photo(project: Path, row: Row) -> NDArray[np.uint8]:
    """The photo as models see it."""
    try:
        photo = read_photo(photo_path(project / RAW, row["file_name"]))
    except PhotoError as error:
        raise TamingError(f"{row['file_name']} cannot be read: {error}. Replace the file, and run `taming detect` "
                          "again.") from error  # fmt: skip
    if photo.photo_id != row["photo_id"]:
        raise TamingError(f"{row['file_name']} has changed since detection. Run `taming detect` again.")
    return photo.image
