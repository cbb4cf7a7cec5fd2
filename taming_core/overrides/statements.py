"""What a person says of an object, as rows of the table of overrides; each function checks what it is told."""

import re
from collections.abc import Sequence

import numpy as np

from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT
from taming_core.overrides.matching import Correction, assign, box_of, size_of
from taming_core.overrides.table import REJECT, RESTORE, Field, Override
from taming_core.photos.masks import Box, Mask, encode_mask
from taming_core.tables import schema

MAX_WORDS = 2000  # characters of a class or caption: more is a mistake, such as a pasted file


def key_of(row: schema.Row, rows: Sequence[schema.Row], said: Sequence[Correction]) -> Box:
    """The box that names an object in the table of overrides: of what was said of it before, or else its own.

    Args:
        row: of the object, as `taming detect` wrote it.
        rows: all of its photo.
        said: of its photo.
    """
    meant = assign(rows, said).get([r["object_id"] for r in rows].index(row["object_id"]))
    return _box(row) if meant is None else said[meant].box_xyxy


def reject(row: schema.Row, key: Box | None = None) -> Override:
    """An object is not used."""
    return _said(row, key, "decision", REJECT, row["mask_png"])


def restore(row: schema.Row, key: Box | None = None) -> Override:
    """An object is used although a filter or a person dropped it.

    Raises:
        TamingError: it has no mask; `taming detect` makes none where score or box are enough to drop an object.
    """
    if row["mask_png"] is None:
        raise TamingError(f"The object in {row['file_name']} has no mask, without which it cannot be used. Give it one "
                          "first.")  # fmt: skip
    return _said(row, key, "decision", RESTORE, row["mask_png"])


def with_mask(row: schema.Row, mask: Mask, key: Box | None = None) -> Override:
    """An object is where a mask (H, W) is, of the photo as models see it; its box follows.

    Raises:
        TamingError: the mask is empty.
    """
    return _said(row, key, "mask", None, _encoded(mask, row["file_name"]))


def with_class(row: schema.Row, noun: str, key: Box | None = None) -> Override:
    """An object is of another class.

    Raises:
        TamingError: the text is no noun.
    """
    return _said(row, key, "class", checked_class(noun), None)


def with_caption(row: schema.Row, caption: str, key: Box | None = None) -> Override:
    """An object has another caption, with `<object>` in the place of the words that name it.

    Raises:
        TamingError: the caption has no `<object>`.
    """
    return _said(row, key, "caption", checked_caption(caption), None)


def added(photo: schema.Row, mask: Mask) -> Override:
    """There is an object that no detector found.

    Args:
        photo: any row of the photo.
        mask: (H, W), of the photo as models see it.

    Raises:
        TamingError: the mask is empty, or the photo cannot be read.
    """
    if photo["photo_width"] is None:
        raise TamingError(f"{photo['file_name']} cannot be read, so that nothing can be added to it. Replace the file, "
                          "and run `taming detect` again.")  # fmt: skip
    png = _encoded(mask, photo["file_name"])
    return Override(photo["photo_id"], photo["file_name"], box_of(mask, size_of(photo)), None, "mask", None, png)


def checked_class(noun: str) -> str:
    """A class as tables have it: lower case, single spaces.

    >>> checked_class("  Red  Panda ")
    'red panda'

    Raises:
        TamingError: there is no letter, or `<object>`, or it is very long.
    """
    words = " ".join(noun.lower().split())
    if not any(c.isalpha() for c in words) or OBJECT in words or len(words) > MAX_WORDS:
        raise TamingError(f"'{words[:40]}' is no class. Write a noun, such as mug.")
    return words


def checked_caption(caption: str) -> str:
    """A caption in one line, its `<object>` in lower case.

    >>> checked_caption(" a <Object>  on\\n the beach ")
    'a <object> on the beach'

    Raises:
        TamingError: there is no `<object>`, or it is very long.
    """
    words = " ".join(re.sub(OBJECT, OBJECT, caption, flags=re.IGNORECASE).split())
    if len(words) > MAX_WORDS:
        raise TamingError(f"The caption has {len(words)} characters, and may have {MAX_WORDS}. Shorten it.")
    if OBJECT not in words:
        raise TamingError(f"The caption '{words[:60]}' has no {OBJECT}. Write {OBJECT} in the place of the words that "
                          "name the object, such as: a photo of a <object> on the beach.")  # fmt: skip
    return words


def _encoded(mask: Mask, name: str) -> bytes:
    if not np.any(mask):
        raise TamingError(f"The mask of the object in {name} is empty. Mark the object with points or a box.")
    return encode_mask(mask)


def _box(row: schema.Row) -> Box:
    x0, y0, x1, y1 = row["box_xyxy"]
    return x0, y0, x1, y1


def _said(row: schema.Row, key: Box | None, field: Field, text: str | None, png: bytes | None) -> Override:
    return Override(row["photo_id"], row["file_name"], key or _box(row), row["class"], field, text, png)
