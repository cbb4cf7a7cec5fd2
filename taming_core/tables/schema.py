"""The schema of every table between stages, and readers and writers that check it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from taming_core.errors import TamingError
from taming_core.files import replacing, require_out_file
from taming_core.storage.filesystem import is_file
from taming_core.storage.paths import AnyPath
from taming_core.tables.parquet import reading, source_of

VERSION = "7"  # incremented whenever a column changes; tables of another version are rejected

Row = Mapping[str, Any]
if TYPE_CHECKING:
    Field = pa.Field[Any]
else:
    Field = pa.Field  # not generic when it runs


def column(name: str, kind: pa.DataType, description: str, nullable: bool = False) -> Field:
    """One column with its description in the field's metadata."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _schema(name: str, command: str, columns: Sequence[Field], version: str = VERSION) -> pa.Schema:
    return pa.schema(columns, metadata={"taming.table": name, "taming.version": version, "taming.command": command})


# The Arrow type of an Image feature of `datasets`.
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

# A group of the vocabulary of attributes, and what became of it.
ATTRIBUTE = pa.struct(
    [("group", pa.string()), ("word", pa.string()), ("score", pa.float32()), ("margin", pa.float32()),
     ("decision", pa.string())]
)  # fmt: skip

# A score of `detect.curation`.
SCORE = pa.struct([("name", pa.string()), ("score", pa.float32())])

CLASS = "the noun of the metadata, the classifier or the detector; null where unknown"

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
        column("photo_hash", pa.string(), "difference hash of the upright photo; null if unreadable", nullable=True),
        column(
            "photo_thumbnail", pa.binary(), "16x16 grey values of it, row by row; null if unreadable", nullable=True
        ),
        column("identity", pa.string(), "which individual the object is; null where unknown", nullable=True),
        column("object_id", pa.string(), "photo_id and a number; null for a photo without objects", nullable=True),
        column("class", pa.string(), CLASS, nullable=True),
        column(
            "class_score",
            pa.float32(),
            "the classifier's probability of the class, in [0, 1]; null without one",
            nullable=True,
        ),
        column("score", pa.float32(), "the detector's confidence, or the mask's without one, in [0, 1]", nullable=True),
        column("box_xyxy", pa.list_(pa.int32(), 4), "pixels of the upright photo, half-open", nullable=True),
        column(
            "mask_png",
            pa.binary(),
            "1-bit PNG of the size at which models see the photo: the upright photo's, its longer side scaled down to "
            "2048 pixels if it is longer; null where score or box were enough to drop the object",
            nullable=True,
        ),
        column("mask_quality", pa.float32(), "the segmenter's predicted IoU in [0, 1]", nullable=True),
        column("mask_source", pa.string(), "given (by file), alpha, segmenter, detector or override", nullable=True),
        column("area_fraction", pa.float32(), "mask pixels / pixels of the photo at that size", nullable=True),
        column("mask_fill", pa.float32(), "mask pixels inside the box / box pixels", nullable=True),
        column("sharpness", pa.float32(), "of the object, by detect.curation; null if not measured", nullable=True),
        column("scores", pa.list_(SCORE), "of detect.curation; null if there are none", nullable=True),
        column("photo_reason", pa.string(), "why the photo is not used in any way; null means it is", nullable=True),
        column("given_caption", pa.string(), "from metadata, or a text file beside the photo", nullable=True),
        column("given_class", pa.string(), "the photo's class, from metadata or a folder's name", nullable=True),
        column("given_split", pa.string(), "from metadata, or the top folder's name", nullable=True),
        column(
            "override",
            pa.list_(pa.string()),
            "what a person said of it: rejected, restored, added, mask, class, caption; null of `taming detect`",
            nullable=True,
        ),
        column("override_caption", pa.string(), "a person's caption of it, with <object>", nullable=True),
        column("drop_reason", pa.string(), "why this is not used further on; null means kept", nullable=True),
    ],
)

CAPTIONS = _schema(
    "captions",
    "taming caption",
    [
        *PHOTO,
        column("object_id", pa.string(), "the object this row speaks of; null on bare photos", nullable=True),
        column("class", pa.string(), CLASS, nullable=True),
        column("caption", pa.string(), "the caption without a placeholder", nullable=True),
        column("match_score", pa.float32(), "probability in [0, 1] that image and caption match", nullable=True),
        column("object_caption", pa.string(), "the caption with <object> in the noun's place", nullable=True),
        column("replaced", pa.string(), "the words that <object> stands for", nullable=True),
        column("span_start", pa.int32(), "first character of `replaced` in `caption`", nullable=True),
        column("span_end", pa.int32(), "one past its last character", nullable=True),
        column(
            "method",
            pa.string(),
            "noun, head, captioner, conditional or template: how <object> got in; after `given`, and class too, into a "
            "person's caption; given alone: it was there; override: of overrides.parquet",
            nullable=True,
        ),
        column(
            "attributes",
            pa.list_(ATTRIBUTE),
            "per group the likeliest word, its probability, and whether both "
            "captions have it; null where none were looked for",
            nullable=True,
        ),
        column("drop_reason", pa.string(), "why this is not used further on; null means kept", nullable=True),
    ],
)

OVERRIDES = _schema(
    "overrides",
    "taming studio",
    [
        *PHOTO,
        column("box_xyxy", pa.list_(pa.int32(), 4), "of the object when it was said: which one is meant"),
        column("seen_class", pa.string(), "its class then", nullable=True),
        column("field", pa.string(), "what is said: decision, mask, class or caption"),
        column(
            "text", pa.string(), "reject or restore, the class, or the caption with <object>; null of a mask",
            nullable=True,
        ),
        column(
            "mask_png", pa.binary(), "the mask that is said, or of a decision the one that was seen, as of objects",
            nullable=True,
        ),
    ],
    version="1",  # its own: what a person said must outlive other tables
)  # fmt: skip

_ROWS = _schema(
    "rows",
    "taming materialize",
    [
        column("row_id", pa.string(), "object_id, or photo_id for a regularization row"),
        *PHOTO,
        column("image", IMAGE, "target image, RGB", nullable=True),
        column("width", pa.int32(), "pixels of `image`; null where there is none", nullable=True),
        column("height", pa.int32(), "pixels of `image`; null where there is none", nullable=True),
        column("photo_width", pa.int32(), "pixels of the upright photo; null without `image`", nullable=True),
        column("photo_height", pa.int32(), "pixels of the upright photo; null without `image`", nullable=True),
        column("crop_left", pa.int32(), "pixels of the photo, scaled to `image`, left of it", nullable=True),
        column("crop_top", pa.int32(), "pixels of the photo, scaled to `image`, above it", nullable=True),
        column("mask", IMAGE, "where the object is in `image`, 8-bit gray, 0 or 255", nullable=True),
        column("subject", IMAGE, "the object cut out of its photo, RGBA, square", nullable=True),
        column("caption", pa.string(), "the caption without a placeholder", nullable=True),
        column("object_caption", pa.string(), "the caption with <object>; null on regularization rows", nullable=True),
        column("class", pa.string(), CLASS, nullable=True),
        column("identity", pa.string(), "rows of one identity show one individual object", nullable=True),
        column("split", pa.string(), "train, validation, test; dropped where drop_reason is set"),
        column("regularization", pa.bool_(), "true for a regularization row: caption only, no subject"),
        column("references", pa.list_(pa.string()), "row_ids of other views of the identity, near-duplicates left out"),
        column("view_hash", pa.string(), "difference hash of `image`, 16 hex digits", nullable=True),
        column("near_duplicate_of", pa.string(), "file_name of a photo of another identity, if one is", nullable=True),
        column("drop_reason", pa.string(), "why this is not used further on; null means kept", nullable=True),
    ],
)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type as a feature of `datasets`."""
    value_type: Any = getattr(kind, "value_type", None)  # untyped
    if kind == IMAGE:
        return {"_type": "Image"}
    if isinstance(kind, pa.ListType):
        # `List` since version 4, which reads this older name as well.
        return {"feature": _feature(value_type), "_type": "Sequence"}
    return {"dtype": str(kind), "_type": "Value"}


def _with_metadata(schema: pa.Schema, key: bytes, value: str) -> pa.Schema:
    untyped: Any = schema
    return untyped.with_metadata({**(schema.metadata or {}), key: value.encode()})


def _with_features(schema: pa.Schema) -> pa.Schema:
    """The schema with the features of `datasets` in its metadata, so that it decodes the image columns."""
    features = {field.name: _feature(field.type) for field in _fields(schema)}
    return _with_metadata(schema, b"huggingface", json.dumps({"info": {"features": features}}))


def _fields(schema: pa.Schema) -> list[Any]:
    fields: Any = schema
    return list(fields)


ROWS = _with_features(_ROWS)


def table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows as a table with exactly the columns of `schema`.

    Raises:
        ValueError: a row has an unknown or a missing key, or a null where the schema forbids it.
    """
    # pyarrow drops unknown keys, turns missing ones into null, and accepts nulls in required columns.
    names = set(schema.names)
    required = [field.name for field in _fields(schema) if not field.nullable]
    for i, row in enumerate(rows):
        if set(row) != names:
            raise ValueError(f"row {i}: unknown {sorted(row.keys() - names)}, missing {sorted(names - row.keys())}")
        if nulls := [n for n in required if row[n] is None]:
            raise ValueError(f"row {i}: null in required {nulls}")
    return pa.Table.from_pylist([dict(r) for r in rows], schema)


def add_fingerprint(schema: pa.Schema, fingerprint: str) -> pa.Schema:
    """The schema with the fingerprint of the table's params in its metadata."""
    return _with_metadata(schema, b"taming.params", fingerprint)


def write(tables: Iterable[pa.Table], schema: pa.Schema, out: AnyPath) -> None:
    """Write the tables as row groups of one Parquet file, whole or not at all."""
    with replacing(out) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for t in tables:
            writer.write_table(t.cast(schema))


def require_out(out: AnyPath, expected: pa.Schema, *inputs: AnyPath | None) -> None:
    """Check before the work that a table can be written, and that it replaces nothing but a table of its kind.

    Args:
        out: the file to write.
        expected: the schema of the table.
        inputs: files and folders that the command reads; None for one that is not used.

    Raises:
        TamingError: as `files.require_out_file`, or `out` is another file.
    """
    name = expected.metadata[b"taming.table"]
    require_out_file(out, f"{name.decode()}.parquet", inputs)
    if is_file(out) and name_of(out) != name.decode():
        raise TamingError(f"{out} is another file than a table of {name.decode()}, or is damaged. Name a new file with "
                          "--out, or remove this one.")  # fmt: skip


def name_of(path: AnyPath) -> str | None:
    """Which table of this program, of any version, a file holds; None for another file."""
    try:
        with pq.ParquetFile(source_of(path)) as file:
            metadata = file.schema_arrow.metadata or {}
    except (pa.ArrowException, OSError):
        return None
    return metadata.get(b"taming.table", b"").decode() or None


def check(actual: pa.Schema, expected: pa.Schema, path: AnyPath) -> None:
    """Check that a table has the expected columns and version.

    Raises:
        TamingError: it does not; the message names the command to run again.
    """
    command = expected.metadata[b"taming.command"].decode()
    version = (actual.metadata or {}).get(b"taming.version", b"unknown").decode()
    if version not in (VERSION, "unknown"):
        raise TamingError(f"{path} has table version {version}, this is version {VERSION}. Run `{command}` again.")
    missing = [n for n in expected.names if n not in actual.names]
    if missing:
        raise TamingError(f"{path} has no column '{missing[0]}'. Run `{command}` again.")
    if version != VERSION:
        raise TamingError(f"{path} has no table version, this is version {VERSION}. Run `{command}` again.")


def open_table(path: AnyPath, expected: pa.Schema) -> pq.ParquetFile:
    """The Parquet file, its schema checked.

    Raises:
        TamingError: the file does not exist, is not Parquet, or is of another version.
    """
    command = expected.metadata[b"taming.command"].decode()
    if not is_file(path):
        raise TamingError(f"{path} does not exist. Run `{command}` first, or name another table.")
    try:
        file = pq.ParquetFile(source_of(path))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the operating system
            raise
        raise TamingError(f"{path} is not a Parquet file, or is damaged. Remove it, and run `{command}` "
                          "again.") from error  # fmt: skip
    check(file.schema_arrow, expected, path)
    return file


def iter_rows(
    path: AnyPath, expected: pa.Schema, size: int, columns: Sequence[str] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The table's rows, `size` at a time, so that memory does not grow with the table."""
    with reading(path), open_table(path, expected) as file:
        reader: Any = file  # partly untyped
        for batch in reader.iter_batches(batch_size=size, columns=list(columns) if columns else None):
            yield batch.to_pylist()


def kept_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without a drop reason."""
    return [r for r in rows if r["drop_reason"] is None]


SPLITS = ("train", "validation", "test")
