"""Where rows come from: objects with a caption, photos with a caption only, and a folder of regularization pairs."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from taming_core.params.sections import MaterializeParams
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import copies, file_name, folder_state, list_photos, photo_id_of
from taming_core.photos.masks import decode_mask
from taming_core.photos.metadata import PhotoMetadata, read_metadata
from taming_core.rows.index import caption_of, first, key_of, known_split, split_in
from taming_core.rows.triplets import subject, target
from taming_core.tables import schema, shards

EMPTY_ROW: Mapping[str, Any] = dict.fromkeys(schema.ROWS.names) | {"regularization": False, "references": []}


@dataclass(frozen=True)
class MaterializeInputs:
    """All that rows are made from."""

    raw: Path  # folder of photos
    objects: Path  # table
    captions: Path  # table
    regularization: Path | None  # folder of text-image pairs

    def state(self) -> list[str]:
        """What changes when a photo or a table is written again; raises TamingError if there are no raw photos."""
        list_photos(self.raw)
        tables = [path.stat() for path in (self.objects, self.captions)]
        folders = [folder_state(folder) for folder in (self.raw, self.regularization) if folder]
        return [*(f"{t.st_size} {t.st_mtime_ns}" for t in tables), *folders]

    def pairs(self) -> list[Path]:
        """The photos of the regularization folder."""
        return list_photos(self.regularization) if self.regularization else []

    def count(self) -> int:
        """Rows of both tables and text-image pairs."""
        tables = ((self.objects, schema.OBJECTS), (self.captions, schema.CAPTIONS))
        return sum(schema.open_table(*table).metadata.num_rows for table in tables) + len(self.pairs())


def make_shards(
    given: MaterializeInputs, db: sqlite3.Connection, folder: Path, expected: pa.Schema, p: MaterializeParams
) -> Iterator[int]:
    """Write rows without references into the sub-folders 0, 1 and 2 of `folder`, and yield how many inputs are done."""
    objects = schema.iter_rows(given.objects, schema.OBJECTS, p.shard_size)
    captions = schema.iter_rows(given.captions, schema.CAPTIONS, p.shard_size)
    steps = [
        shards.write_chunks(objects, folder / "0", expected, lambda found: object_rows(found, db, given.raw, p)),
        shards.write_chunks(captions, folder / "1", expected, lambda found: caption_rows(found, db, given.raw, p)),
    ]
    if given.regularization:
        make = pair_maker(given.regularization, given.raw, p)
        steps.append(shards.write_shards(given.pairs(), p.shard_size, folder / "2", expected, make))
    before = 0
    for step in steps:
        done = 0
        for done in step:
            yield before + done
        before += done


def _row_or_reason(found: schema.Row, make: Callable[[], schema.Row]) -> schema.Row:
    """The row that `make` makes, or one without pictures that tells what went wrong."""
    try:
        return make()
    except PhotoError as error:
        known = {"row_id": found["object_id"] or found["photo_id"], "split": "dropped", "drop_reason": str(error)}
        return {**EMPTY_ROW, **known, "photo_id": found["photo_id"], "file_name": found["file_name"]}


def _read_unchanged(path: Path, photo_id: str) -> Photo:
    """The photo, as it was when the table was made; raises PhotoError."""
    photo = read_photo(path)
    if photo.photo_id != photo_id:
        raise PhotoError("photo changed since detection")
    return photo


def object_rows(
    found: Sequence[schema.Row], db: sqlite3.Connection, raw: Path, p: MaterializeParams
) -> list[schema.Row]:
    """A row for each kept object, and one with a drop reason for each photo that gave neither object nor caption.

    An object that detection dropped becomes no row: the objects table tells why.
    """
    # The objects of a photo lie together: it is read once.
    read = lru_cache(maxsize=1)(lambda name, photo_id: _read_unchanged(raw / name, photo_id))
    return [_row_or_reason(o, lambda o=o: _object_row(o, db, read, p)) for o in found if _becomes_row(o, db)]


def _becomes_row(o: schema.Row, db: sqlite3.Connection) -> bool:
    """False for a dropped object, and for a photo without objects whose caption makes a row of its own."""
    if o["object_id"]:
        return o["drop_reason"] is None
    return o["photo_width"] is None or caption_of(db, o["file_name"]) is None


def _object_row(
    o: schema.Row, db: sqlite3.Connection, read: Callable[[str, str], Photo], p: MaterializeParams
) -> schema.Row:
    caption, object_caption, reason = caption_of(db, key_of(o)) or (None, None, None)
    if problem := o["drop_reason"] or reason or (None if caption and object_caption else "no caption"):
        raise PhotoError(problem)
    image = read(o["file_name"], o["photo_id"]).image
    return {
        **EMPTY_ROW,
        **{name: o[name] for name in ("photo_id", "file_name", "class")},
        **target(image, p, o["box_xyxy"]),
        **subject(image, decode_mask(o["mask_png"]), p, o["box_xyxy"]),
        "row_id": o["object_id"],
        "caption": caption,
        "object_caption": object_caption,
        "identity": o["identity"] or o["photo_id"],
        "split": split_in(db, o["photo_id"], p),
    }


def caption_rows(
    found: Sequence[schema.Row], db: sqlite3.Connection, raw: Path, p: MaterializeParams
) -> list[schema.Row]:
    """A regularization row for each captioned photo without object, in the split of the photo's identity.

    Whatever `object_rows` accounts for makes no row here; an object that only the captions know is dropped.
    """
    accounted = "select key from objects where key = ? and (object_id is not null or photo_width is null)"
    rest = [c for c in found if first(db, accounted, key_of(c)) is None]
    return [_row_or_reason(c, lambda c=c: _caption_row(c, db, raw, p)) for c in rest]


def _caption_row(c: schema.Row, db: sqlite3.Connection, raw: Path, p: MaterializeParams) -> schema.Row:
    stray = "object is not in the objects table" if c["object_id"] else None
    if problem := c["drop_reason"] or stray or (None if c["caption"] else "no caption"):
        raise PhotoError(problem)
    photo = _read_unchanged(raw / c["file_name"], c["photo_id"])
    return _regularization_row(photo, c["file_name"], c["caption"], split_in(db, photo.photo_id, p), p)


def pair_maker(folder: Path, raw: Path, p: MaterializeParams) -> Callable[[Sequence[Path]], list[schema.Row]]:
    """What makes a regularization row of each text-image pair in `folder`; in train, unless the metadata names a split.

    A copy of a raw photo is dropped: a held-out photo must not come in by this door.
    """
    given = read_metadata(folder)
    seen = copies([*list_photos(raw), *list_photos(folder)])

    def row(path: Path, name: str) -> schema.Row:
        said = given.get(name, PhotoMetadata())
        if path in seen:
            raise PhotoError(f"copy of another photo: {seen[path].name}")
        if said.caption is None:
            raise PhotoError("no caption")
        return _regularization_row(read_photo(path), name, said.caption, known_split(said.split or "train"), p)

    def make(path: Path) -> schema.Row:
        name = file_name(path, folder)
        known = {"object_id": None, "photo_id": photo_id_of(path), "file_name": name}
        return _row_or_reason(known, lambda: row(path, name))

    return lambda paths: [make(path) for path in paths]


def _regularization_row(photo: Photo, name: str, caption: str, split: str, p: MaterializeParams) -> schema.Row:
    known = {"row_id": photo.photo_id, "photo_id": photo.photo_id, "file_name": name, "caption": caption}
    return {**EMPTY_ROW, **known, **target(photo.image, p), "split": split, "regularization": True}
