"""Rows of one source: of the objects of a photo, of a photo with a caption only, or of a text-image pair."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taming_core.drop_reasons import (
    COPY,
    NEAR_DUPLICATE,
    NEAR_DUPLICATE_IDENTITY,
    NO_CAPTION,
    PHOTO_CHANGED,
    UNKNOWN_OBJECT,
    UNUSABLE_MASK,
    with_details,
)
from taming_core.params.sections import MaterializeParams
from taming_core.photos.closeup import closeup
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import photo_id_of, photo_path
from taming_core.photos.masks import decode_mask
from taming_core.rows import database, near_duplicates
from taming_core.rows.index import (
    boxes_of_photo,
    caption_of,
    first_near_duplicate,
    key_of,
    split_of_photo,
    split_of_row,
)
from taming_core.rows.sources import CaptionedPhoto, PhotoObjects, Source, TextImagePair
from taming_core.rows.triplets import image_side, shared_box, subject, target
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema

EMPTY_ROW: Mapping[str, Any] = dict.fromkeys(schema.ROWS.names) | {"regularization": False, "references": []}

Rows = list[schema.Row]


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of sources, without references; picklable, for any process that sees the files."""

    raw: AnyPath
    regularization: AnyPath | None
    index: AnyPath  # of `sources.build_index`
    p: MaterializeParams

    def prepare(self, source: Source) -> Rows:
        """The rows of a source; a photo or object that is not used is a row with its drop reason."""
        if isinstance(source, PhotoObjects):
            read = cache(partial(self._read_unchanged, self.raw))  # the objects of a photo share it
            return [_row_or_reason(o, lambda o=o: self._object_row(o, read)) for o in source.objects]
        if isinstance(source, CaptionedPhoto):
            return [_row_or_reason(source.caption, lambda: self._caption_row(source.caption))]
        return [_row_or_reason(self._known(source), lambda: self._pair_row(source))]

    def load(self) -> Callable[[Sequence[tuple[Source, Rows | str]]], Rows]:
        """What gathers the prepared rows of sources; a text in their place is the drop reason."""
        return self._gather

    def _gather(self, batch: Sequence[tuple[Source, Rows | str]]) -> Rows:
        return [
            row for source, rows in batch for row in (self._dropped(source, rows) if isinstance(rows, str) else rows)
        ]

    def _dropped(self, source: Source, reason: str) -> Rows:
        if isinstance(source, PhotoObjects):
            return [_dropped_row(o, reason) for o in source.objects]
        return [_dropped_row(source.caption if isinstance(source, CaptionedPhoto) else self._known(source), reason)]

    def _path(self, pair: TextImagePair) -> AnyPath:
        assert self.regularization is not None
        return photo_path(self.regularization, pair.file_name)

    def _known(self, pair: TextImagePair) -> schema.Row:
        """What every row of a pair says of it."""
        return {"object_id": None, "photo_id": photo_id_of(self._path(pair)), "file_name": pair.file_name}

    @property
    def _db(self) -> sqlite3.Connection:
        return database.reading(self.index)

    def _read(self, path: AnyPath) -> Photo:
        """The photo, at the size that its target needs."""
        return read_photo(path, side_of=partial(image_side, p=self.p))

    def _read_unchanged(self, folder: AnyPath, name: str, photo_id: str) -> Photo:
        """The photo; raises PhotoError if its file has changed since the table was made."""
        photo = self._read(photo_path(folder, name))
        if photo.photo_id != photo_id:
            raise PhotoError(PHOTO_CHANGED)
        return photo

    def _object_row(self, o: schema.Row, read: Callable[[str, str], Photo]) -> schema.Row:
        db, p = self._db, self.p
        caption, object_caption, reason = caption_of(db, key_of(o)) or (None, None, None)
        if problem := o["drop_reason"] or reason or (None if caption and object_caption else NO_CAPTION):
            raise PhotoError(problem)
        duplicate = _near_duplicate(db, o, p)
        mask, photo = _mask_of(o), read(o["file_name"], o["photo_id"])
        size = photo.width, photo.height
        box = shared_box(*size, o["box_xyxy"], boxes_of_photo(db, o["photo_id"]), p)
        near = closeup(photo_path(self.raw, o["file_name"]), photo, mask, p.subject_size, p.subject_fill)
        return {
            **EMPTY_ROW,
            **{name: o[name] for name in ("photo_id", "file_name", "class")},
            **target(photo.image, p, box, size),
            **subject(photo.image, mask, p, box, size, near),
            "row_id": o["object_id"],
            "caption": caption,
            "object_caption": object_caption,
            "identity": o["identity"] or o["photo_id"],
            "split": split_of_row(db, o["photo_id"]),
            "near_duplicate_of": duplicate,
        }

    def _caption_row(self, c: schema.Row) -> schema.Row:
        """A regularization row, in the split of the photo's identity."""
        missing = UNKNOWN_OBJECT if c["object_id"] else None
        if problem := c["drop_reason"] or missing or (None if c["caption"] else NO_CAPTION):
            raise PhotoError(problem)
        photo = self._read_unchanged(self.raw, c["file_name"], c["photo_id"])
        return self._regularization_row(photo, c["file_name"], c["caption"], split_of_row(self._db, photo.photo_id))

    def _pair_row(self, pair: TextImagePair) -> schema.Row:
        """A regularization row.

        A copy of a raw photo is dropped, and so is a near-duplicate of one in another split, so that held-out photos do
        not enter training this way.
        """
        if pair.copy_of is not None:
            raise PhotoError(with_details(COPY, pair.copy_of))
        if pair.caption is None:
            raise PhotoError(NO_CAPTION)
        photo = self._read(self._path(pair))
        for photo_id in near_duplicates.near(self._db, photo.image, self.p):
            if split_of_photo(self._db, photo_id) != pair.split:
                raise PhotoError(NEAR_DUPLICATE)
        return self._regularization_row(photo, pair.file_name, pair.caption, pair.split)

    def _regularization_row(self, photo: Photo, name: str, caption: str, split: str) -> schema.Row:
        columns = {"row_id": photo.photo_id, "photo_id": photo.photo_id, "file_name": name, "caption": caption}
        image = target(photo.image, self.p, size=(photo.width, photo.height))
        return {**EMPTY_ROW, **columns, **image, "split": split, "regularization": True}


def _row_or_reason(source: schema.Row, make: Callable[[], schema.Row]) -> schema.Row:
    """The result of `make`, or a row without images and with a drop reason."""
    try:
        return make()
    except PhotoError as error:
        return _dropped_row(source, str(error))


def _dropped_row(source: schema.Row, reason: str) -> schema.Row:
    row_id = source["object_id"] or source["photo_id"]
    dropped = {"row_id": row_id, "split": "dropped", "drop_reason": reason}
    return {**EMPTY_ROW, **dropped, "photo_id": source["photo_id"], "file_name": source["file_name"]}


def _near_duplicate(db: sqlite3.Connection, o: schema.Row, p: MaterializeParams) -> str | None:
    """The file name of the first photo of another identity that an object's photo is a near-duplicate of, if any."""
    name = first_near_duplicate(db, o["photo_id"])
    if name is not None and p.near_duplicates == "drop" and name < o["file_name"]:
        raise PhotoError(with_details(NEAR_DUPLICATE_IDENTITY, name))
    return name


def _mask_of(o: schema.Row) -> NDArray[np.bool_]:
    """The mask (H, W) of an object; raises PhotoError if there is none, or nothing in it, or no box around it."""
    if o["mask_png"] is None or o["box_xyxy"] is None:
        raise PhotoError(with_details(UNUSABLE_MASK, "mask or box is missing"))
    try:
        mask = decode_mask(o["mask_png"])
    except (OSError, SyntaxError) as error:  # what Pillow raises for damaged PNG files
        raise PhotoError(with_details(UNUSABLE_MASK, "damaged")) from error
    if not mask.any():
        raise PhotoError(with_details(UNUSABLE_MASK, "empty"))
    return mask
