"""The schema of every table between stages, and writes that are checked both ways."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taming_core.errors import TamingError

VERSION = "3"  # raised whenever a column changes: tables of another version are refused

Row = Mapping[str, Any]


def column(name: str, kind: pa.DataType, description: str, nullable: bool = False) -> pa.Field:
    """One column with its description in the field's metadata."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _schema(name: str, command: str, columns: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema(columns, metadata={"taming.table": name, "taming.version": VERSION, "taming.command": command})


# What `datasets` reads and writes for an Image feature.
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

PHOTO = [
    column("photo_id", pa.string(), "content hash of the photo file, 16 hex digits"),
    column("file_name", pa.string(), "path below the raw folder, with forward slashes"),
]

OBJECTS = _schema(
    "objects",
    "taming detect",
    [
        *PHOTO,
        column("photo_width", pa.int32(), "pixels of the upright photo; null if it could not be read", nullable=True),
        column("photo_height", pa.int32(), "pixels of the upright photo; null if it could not be read", nullable=True),
        column("identity", pa.string(), "which individual thing this is; null where nothing tells", nullable=True),
        column("object_id", pa.string(), "photo_id and a number; null for a photo without objects", nullable=True),
        column("class", pa.string(), "the detector's noun", nullable=True),
        column("score", pa.float32(), "the detector's confidence in [0, 1]", nullable=True),
        column("box_xyxy", pa.list_(pa.int32(), 4), "pixels of the upright photo, half-open", nullable=True),
        column("mask_png", pa.binary(), "1-bit PNG of the size of the upright photo", nullable=True),
        column("mask_quality", pa.float32(), "the segmenter's predicted IoU in [0, 1]", nullable=True),
        column("area_fraction", pa.float32(), "mask pixels / photo pixels", nullable=True),
        column("mask_fill", pa.float32(), "mask pixels inside the box / box pixels", nullable=True),
        column("given_caption", pa.string(), "caption from the folder's metadata file", nullable=True),
        column("given_split", pa.string(), "split from the folder's metadata file", nullable=True),
        column("drop_reason", pa.string(), "why this is not used further on; null means kept", nullable=True),
    ],
)

CAPTIONS = _schema(
    "captions",
    "taming caption",
    [
        *PHOTO,
        column("object_id", pa.string(), "the object this row speaks of; null on bare photos", nullable=True),
        column("class", pa.string(), "the detector's noun", nullable=True),
        column("caption", pa.string(), "what the captioner said, in plain words", nullable=True),
        column("match_score", pa.float32(), "probability in [0, 1] that image and caption match", nullable=True),
        column("object_caption", pa.string(), "the caption with <object> in the noun's place", nullable=True),
        column("replaced", pa.string(), "the words that <object> stands for", nullable=True),
        column("span_start", pa.int32(), "first character of `replaced` in `caption`", nullable=True),
        column("span_end", pa.int32(), "one past its last character", nullable=True),
        column("method", pa.string(), "noun, head, conditional or template: how <object> got in", nullable=True),
        column("drop_reason", pa.string(), "why this is not used further on; null means kept", nullable=True),
    ],
)

ROWS = _schema(
    "rows",
    "taming materialize",
    [
        column("row_id", pa.string(), "object_id, or photo_id for a regularization row"),
        *PHOTO,
        column("image", IMAGE, "target image, RGB", nullable=True),
        column("width", pa.int32(), "pixels of `image`; null where there is none", nullable=True),
        column("height", pa.int32(), "pixels of `image`; null where there is none", nullable=True),
        column("mask", IMAGE, "where the object is in `image`, 8-bit gray, 0 or 255", nullable=True),
        column("subject", IMAGE, "the object cut out of its photo, RGBA, square", nullable=True),
        column("caption", pa.string(), "the caption in plain words", nullable=True),
        column("object_caption", pa.string(), "the caption with <object>; null on regularization rows", nullable=True),
        column("class", pa.string(), "the detector's noun", nullable=True),
        column("identity", pa.string(), "rows of one identity show one individual thing", nullable=True),
        column("split", pa.string(), "train, validation, test; dropped where drop_reason is set"),
        column("regularization", pa.bool_(), "true for a regularization row: caption only, no subject"),
        column("references", pa.list_(pa.string()), "row_ids of other views of the identity, near-duplicates left out"),
        column("view_hash", pa.string(), "difference hash of `image`, 16 hex digits", nullable=True),
        column("drop_reason", pa.string(), "why this is not used further on; null means kept", nullable=True),
    ],
)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type in the words of `datasets`."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if isinstance(kind, pa.ListType):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}


# `datasets` opens the files with these features: pictures come out as pictures.
_FEATURES = {"info": {"features": {f.name: _feature(f.type) for f in ROWS}}}
ROWS = ROWS.with_metadata({**(ROWS.metadata or {}), b"huggingface": json.dumps(_FEATURES).encode()})


def table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows as a table with exactly the columns of `schema`.

    Raises:
        ValueError: a row has an unknown or a missing key, or a null where the schema forbids it.
    """
    # pyarrow drops unknown keys, turns missing ones into null and lets nulls into required columns.
    names = set(schema.names)
    required = [f.name for f in schema if not f.nullable]
    for i, row in enumerate(rows):
        if row.keys() != names:
            raise ValueError(f"row {i}: unknown {sorted(row.keys() - names)}, missing {sorted(names - row.keys())}")
        if nulls := [n for n in required if row[n] is None]:
            raise ValueError(f"row {i}: null in required {nulls}")
    return pa.Table.from_pylist([dict(r) for r in rows], schema)


def with_fingerprint(schema: pa.Schema, fingerprint: str) -> pa.Schema:
    """The schema with the fingerprint of the params that made the table in its metadata."""
    return schema.with_metadata({**(schema.metadata or {}), b"taming.params": fingerprint.encode()})


def write(tables: Iterable[pa.Table], schema: pa.Schema, out: Path) -> None:
    """Write the tables as row groups of one Parquet file, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for t in tables:
            writer.write_table(t.cast(schema))
    part.replace(out)


def check(found: pa.Schema, expected: pa.Schema, path: Path) -> None:
    """Refuse a table that this version did not write.

    Raises:
        TamingError: with the command to run again.
    """
    command = expected.metadata[b"taming.command"].decode()
    version = (found.metadata or {}).get(b"taming.version", b"unknown").decode()
    if version not in (VERSION, "unknown"):
        raise TamingError(f"{path} has table version {version}, this is version {VERSION}. Run `{command}` again.")
    missing = [n for n in expected.names if n not in found.names]
    if missing:
        raise TamingError(f"{path} has no column '{missing[0]}'. Run `{command}` again.")
    if version != VERSION:
        raise TamingError(f"{path} names no table version, this is version {VERSION}. Run `{command}` again.")


def open_table(path: Path, expected: pa.Schema) -> pq.ParquetFile:
    """The Parquet file, its schema checked.

    Raises:
        TamingError: the file is absent, not Parquet, or of another version.
    """
    command = expected.metadata[b"taming.command"].decode()
    if not path.is_file():
        raise TamingError(f"{path} does not exist. Run `{command}` first, or name the table that you mean.")
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise TamingError(f"{path} is not a Parquet file. Run `{command}` again.") from error
    check(file.schema_arrow, expected, path)
    return file


def iter_rows(path: Path, expected: pa.Schema, size: int, columns: Sequence[str] | None = None) -> Iterator[list[dict]]:
    """The table's rows, `size` at a time, so that memory does not grow with the table."""
    with open_table(path, expected) as file:
        for batch in file.iter_batches(batch_size=size, columns=list(columns) if columns else None):
            yield batch.to_pylist()


def kept_rows(rows: Iterable[dict]) -> list[dict]:
    """The rows without a drop reason."""
    return [r for r in rows if r["drop_reason"] is None]


SPLITS = ("train", "validation", "test")
