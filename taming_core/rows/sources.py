"""The sources of rows: objects with a caption, photos with a caption only, and a folder of text-image pairs."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
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
from taming_core.photos.files import file_name, find_copies, folder_state, list_photos, photo_id_of
from taming_core.photos.masks import decode_mask
from taming_core.photos.metadata import PhotoMetadata, read_metadata
from taming_core.rows import near_duplicates
from taming_core.rows.index import (
    boxes_of_photo,
    caption_of,
    check_split,
    first_value,
    key_of,
    near_duplicates_of,
    split_of_photo,
    split_of_row,
)
from taming_core.rows.triplets import image_side, shared_box, subject, target
from taming_core.tables import schema, shards

EMPTY_ROW: Mapping[str, Any] = dict.fromkeys(schema.ROWS.names) | {"regularization": False, "references": []}


@dataclass(frozen=True)
class MaterializeInputs:
    """The inputs of `taming materialize`."""

    raw: Path  # folder of photos
    objects: Path  # table
    captions: Path  # table
    regularization: Path | None  # folder of text-image pairs

    def state(self) -> list[str]:
        """Texts that change when a photo or a table is rewritten; raises TamingError if there are no raw photos."""
        list_photos(self.raw)
        tables = [path.stat() for path in (self.objects, self.captions)]
        folders = [folder_state(folder) for folder in (self.raw, self.regularization) if folder]
        return [*(f"{t.st_size} {t.st_mtime_ns}" for t in tables), *folders]

    def pairs(self) -> list[Path]:
        """The photos of the regularization folder."""
        return list_photos(self.regularization) if self.regularization else []

    def count(self) -> int:
        """The number of rows of both tables and of text-image pairs."""
        tables = ((self.objects, schema.OBJECTS), (self.captions, schema.CAPTIONS))
        return sum(schema.open_table(*table).metadata.num_rows for table in tables) + len(self.pairs())


def make_shards(
    inputs: MaterializeInputs, db: sqlite3.Connection, folder: Path, expected: pa.Schema, p: MaterializeParams
) -> Iterator[int]:
    """Write rows without references into the sub-folders 0, 1 and 2 of `folder`, and yield how many inputs are done."""
    objects = schema.iter_rows(inputs.objects, schema.OBJECTS, p.shard_size)
    captions = schema.iter_rows(inputs.captions, schema.CAPTIONS, p.shard_size)
    steps = [
        shards.write_chunks(objects, folder / "0", expected, partial(object_rows, db=db, raw=inputs.raw, p=p)),
        shards.write_chunks(captions, folder / "1", expected, partial(caption_rows, db=db, raw=inputs.raw, p=p)),
    ]
    if inputs.regularization:
        make = pair_maker(inputs.regularization, inputs.raw, db, p)
        steps.append(shards.write_shards(inputs.pairs(), p.shard_size, folder / "2", expected, make))
    before = 0
    for step in steps:
        done = 0
        for done in step:
            yield before + done
        before += done


def _row_or_reason(source: schema.Row, make: Callable[[], schema.Row]) -> schema.Row:
    """The result of `make`, or a row without images and with a drop reason."""
    try:
        return make()
    except PhotoError as error:
        row_id = source["object_id"] or source["photo_id"]
        dropped = {"row_id": row_id, "split": "dropped", "drop_reason": str(error)}
        return {**EMPTY_ROW, **dropped, "photo_id": source["photo_id"], "file_name": source["file_name"]}


def _read(path: Path, p: MaterializeParams) -> Photo:
    """The photo, at the size that its target needs."""
    return read_photo(path, side_of=partial(image_side, p=p))


def _read_unchanged(path: Path, photo_id: str, p: MaterializeParams) -> Photo:
    """The photo; raises PhotoError if its file has changed since the table was made."""
    photo = _read(path, p)
    if photo.photo_id != photo_id:
        raise PhotoError(PHOTO_CHANGED)
    return photo


def object_rows(
    rows: Sequence[schema.Row], db: sqlite3.Connection, raw: Path, p: MaterializeParams
) -> list[schema.Row]:
    """A row for each kept object, and a dropped row for each photo without object and caption.

    Objects that detection dropped make no row; their reason is in the objects table.
    """

    @lru_cache(maxsize=1)  # the objects of a photo are adjacent, so it is read once
    def read(name: str, photo_id: str) -> Photo:
        return _read_unchanged(raw / name, photo_id, p)

    return [_row_or_reason(o, lambda o=o: _object_row(o, db, raw, read, p)) for o in rows if _becomes_row(o, db)]


def _becomes_row(o: schema.Row, db: sqlite3.Connection) -> bool:
    """False for a dropped object, and for a photo without objects whose caption makes a row of its own."""
    if o["object_id"]:
        return o["drop_reason"] is None
    return o["photo_width"] is None or caption_of(db, o["file_name"]) is None


def _object_row(
    o: schema.Row, db: sqlite3.Connection, raw: Path, read: Callable[[str, str], Photo], p: MaterializeParams
) -> schema.Row:
    caption, object_caption, reason = caption_of(db, key_of(o)) or (None, None, None)
    if problem := o["drop_reason"] or reason or (None if caption and object_caption else NO_CAPTION):
        raise PhotoError(problem)
    duplicate = _near_duplicate(db, o, p)
    mask, photo = _mask_of(o), read(o["file_name"], o["photo_id"])
    size = photo.width, photo.height
    box = shared_box(*size, o["box_xyxy"], boxes_of_photo(db, o["photo_id"]), p)
    near = closeup(raw / o["file_name"], photo, mask, p.subject_size, p.subject_fill)
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


def _near_duplicate(db: sqlite3.Connection, o: schema.Row, p: MaterializeParams) -> str | None:
    """The file name of the first photo of another identity that an object's photo is a near-duplicate of, if any."""
    names = [name for _, name in near_duplicates_of(db, o["photo_id"])]
    if names and p.near_duplicates == "drop" and names[0] < o["file_name"]:
        raise PhotoError(with_details(NEAR_DUPLICATE_IDENTITY, names[0]))
    return names[0] if names else None


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


def caption_rows(
    rows: Sequence[schema.Row], db: sqlite3.Connection, raw: Path, p: MaterializeParams
) -> list[schema.Row]:
    """A regularization row for each captioned photo without object, in the split of the photo's identity.

    Rows of `object_rows` are not repeated; an object that is in the captions table only is dropped.
    """
    query = "select key from objects where key = ? and (object_id is not null or photo_width is null)"
    rest = [c for c in rows if first_value(db, query, key_of(c)) is None]
    return [_row_or_reason(c, lambda c=c: _caption_row(c, db, raw, p)) for c in rest]


def _caption_row(c: schema.Row, db: sqlite3.Connection, raw: Path, p: MaterializeParams) -> schema.Row:
    missing = UNKNOWN_OBJECT if c["object_id"] else None
    if problem := c["drop_reason"] or missing or (None if c["caption"] else NO_CAPTION):
        raise PhotoError(problem)
    photo = _read_unchanged(raw / c["file_name"], c["photo_id"], p)
    return _regularization_row(photo, c["file_name"], c["caption"], split_of_row(db, photo.photo_id), p)


def pair_maker(
    folder: Path, raw: Path, db: sqlite3.Connection, p: MaterializeParams
) -> Callable[[Sequence[Path]], list[schema.Row]]:
    """A function that makes a regularization row of each text-image pair in `folder`; the default split is train.

    A copy of a raw photo is dropped, and so is a near-duplicate of one in another split, so that held-out photos do not
    enter training this way.
    """
    metadata = read_metadata(folder)
    known = near_duplicates.load_photos(db)
    originals = find_copies([*list_photos(raw), *list_photos(folder)])

    def row(path: Path, name: str) -> schema.Row:
        pair = metadata.get(name, PhotoMetadata())
        if path in originals:
            raise PhotoError(with_details(COPY, originals[path].name))
        if pair.caption is None:
            raise PhotoError(NO_CAPTION)
        photo, split = _read(path, p), check_split(pair.split or "train")
        for photo_id in near_duplicates.near(photo.image, known, p):
            if split_of_photo(db, photo_id) != split:
                raise PhotoError(NEAR_DUPLICATE)
        return _regularization_row(photo, name, pair.caption, split, p)

    def make(path: Path) -> schema.Row:
        name = file_name(path, folder)
        source = {"object_id": None, "photo_id": photo_id_of(path), "file_name": name}
        return _row_or_reason(source, lambda: row(path, name))

    return lambda paths: [make(path) for path in paths]


def _regularization_row(photo: Photo, name: str, caption: str, split: str, p: MaterializeParams) -> schema.Row:
    columns = {"row_id": photo.photo_id, "photo_id": photo.photo_id, "file_name": name, "caption": caption}
    return {
        **EMPTY_ROW,
        **columns,
        **target(photo.image, p, size=(photo.width, photo.height)),
        "split": split,
        "regularization": True,
    }
