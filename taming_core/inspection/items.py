"""Rows of the tables between stages as items of the data page: an object, or a photo without one, with what all say."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from taming_core.photos.masks import Box, Size
from taming_core.storage.filesystem import is_file
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import read_rows
from taming_core.tables.row_files import row_files
from taming_core.tables.rows import dropped_table

MEASURES = ("score", "class_score", "mask_quality", "area_fraction", "mask_fill", "sharpness")
CAPTION_COLUMNS = ("file_name", "object_id", "caption", "object_caption", "method", "match_score", "drop_reason")
BATCH = 4096  # rows read at once

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """An object, or a photo or row without one; None where nothing is known."""

    key: str  # object_id, row_id, or the file name of a photo without objects
    file_name: str
    noun: str | None
    identity: str | None
    split: str | None
    drop_reason: str | None  # of the first stage that drops it
    caption: str | None
    object_caption: str | None
    override: tuple[str, ...]  # what a person said
    numbers: Mapping[str, float]
    box_xyxy: Box | None = None  # pixels of the upright photo
    size: Size | None = None  # width and height of it
    note: str = ""  # what else is to be said


class Joined(NamedTuple):
    """What later tables say of objects, by object_id, or by file name of a photo without objects."""

    captions: Mapping[str, Row]
    rows: Mapping[str, Row]  # split and drop_reason


def join(captions: AnyPath | None, rows: AnyPath | None, keys: Container[str]) -> Joined:
    """What the table of captions and a folder of rows say of some objects; nothing where they do not exist.

    Raises:
        TamingError: one of them is damaged or of another version.
    """
    said: dict[str, Row] = {}
    if captions is not None and is_file(captions):
        for batch in schema.iter_rows(captions, schema.CAPTIONS, BATCH, CAPTION_COLUMNS):
            said |= {key: row for row in batch if (key := row["object_id"] or row["file_name"]) in keys}
    return Joined(said, {} if rows is None else _rows(rows, keys))


def _rows(folder: AnyPath, keys: Container[str]) -> dict[str, Row]:
    dropped = dropped_table(folder)
    files = [*(file.path for file in row_files(folder)), *([dropped] if is_file(dropped) else [])]
    found = (row for file in files for row in read_rows(file, ["row_id", "split", "drop_reason"]))
    return {row["row_id"]: row for row in found if row["row_id"] in keys}


NOTHING = Joined({}, {})


def object_item(row: Row, joined: Joined = NOTHING) -> Item:
    """A row of the table of objects, with what later tables say."""
    key = row["object_id"] or row["file_name"]
    caption, made = joined.captions.get(key, {}), joined.rows.get(key, {})
    measures = {name: row[name] for name in MEASURES} | {s["name"]: s["score"] for s in row["scores"] or ()}
    numbers = measures | {"match_score": caption.get("match_score")}
    return Item(
        key, row["file_name"], row["class"], row["identity"],
        made.get("split") if made.get("drop_reason") is None else None,
        row["drop_reason"] or caption.get("drop_reason") or made.get("drop_reason"),
        caption.get("caption") or row["given_caption"], row["override_caption"] or caption.get("object_caption"),
        tuple(row["override"] or ()), _known(numbers),
        None if row["box_xyxy"] is None else tuple(row["box_xyxy"]),
        None if row["photo_width"] is None else (row["photo_width"], row["photo_height"]),
    )  # fmt: skip


def caption_item(row: Row) -> Item:
    """A row of the table of captions."""
    override = ("caption",) if row["method"] == "override" else ()
    numbers = _known({"match_score": row["match_score"]})
    return Item(
        row["object_id"] or row["file_name"], row["file_name"], row["class"], None, None, row["drop_reason"],
        row["caption"], row["object_caption"], override, numbers,
        note="" if row["method"] is None else f"<object> by {row['method']}",
    )  # fmt: skip


def training_item(row: Row) -> Item:
    """A row of training, or one that was dropped."""
    kept = row["drop_reason"] is None
    numbers = _known({"other views": len(row["references"])} if kept and not row["regularization"] else {})
    return Item(
        row["row_id"], row["file_name"], row["class"], row["identity"], row["split"] if kept else None,
        row["drop_reason"], row["caption"], row["object_caption"], (), numbers,
        note="regularization" if row["regularization"] else "",
    )  # fmt: skip


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None}
