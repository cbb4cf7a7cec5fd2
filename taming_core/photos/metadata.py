"""Metadata files of a photo folder: identity, class, caption, split and mask of each photo."""

import csv
import io
import json
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from upath import UPath

from taming_core.errors import TamingError
from taming_core.photos.files import name_of, path_of, read_file
from taming_core.photos.layout import SPLITS, split_name
from taming_core.photos.text import clean, read_text
from taming_core.photos.tree import Tree
from taming_core.storage.paths import AnyPath, is_remote

# The names of a column, preferred ones first: those of `datasets`, of diffusers' examples and of other toolkits.
COLUMNS = {
    "file_name": ("file_name", "filename", "image", "image_path", "file", "file_path", "path", "image_file_name"),
    "identity": ("identity",),
    "class": ("class",),
    "caption": ("caption", "text", "prompt"),
    "split": ("split",),
    "mask": ("mask", "mask_file_name"),
}
DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class PhotoMetadata:
    """What a person says about one photo."""

    identity: str | None = None
    noun: str | None = None  # column `class`
    caption: str | None = None
    split: str | None = None
    mask: AnyPath | None = None  # a file
    left_out: str | None = None  # the drop reason of a photo that shows no object


@dataclass(frozen=True)
class Metadata:
    """The metadata files of a folder, by paths relative to it."""

    paths: list[Path] = field(default_factory=list[Path])  # the files themselves
    photos: dict[str, PhotoMetadata] = field(default_factory=dict[str, PhotoMetadata])  # by file name
    unused: dict[Path, set[str]] = field(default_factory=dict[Path, set[str]])  # columns of each file


def is_metadata(path: Path) -> bool:
    """Whether a file is metadata by its name, in upper or lower case."""
    return path.stem.lower() == "metadata" and path.suffix.lower() in METADATA


def read_metadata(paths: Iterable[Path], tree: Tree) -> Metadata:
    """The rows of metadata files in a folder; file names are relative to the metadata file's folder, or absolute.

    The columns are those of `COLUMNS`, in upper or lower case.

    Raises:
        TamingError: a file cannot be read, or a row has no file name, names a missing file or one outside of the
            folder, or names a file a second time.
    """
    found = Metadata()
    for path in paths:
        found.paths.append(path)
        file = tree.path(path)
        for number, row in enumerate(_metadata_rows(file), start=1):
            columns = _columns(row)
            cells = {key: str(row[column]) for key, column in columns.items()}
            if "file_name" not in cells:
                raise TamingError(f"{file}, row {number}, has no file_name. Add it to each row.")
            name = name_of(_named(path, cells["file_name"], tree))
            if name in found.photos:
                raise TamingError(f"{file} names {name} a second time. Remove one of the rows.")
            found.photos[name] = _photo_metadata(path, cells, tree)
            rest = {column for column, value in row.items() if not _is_empty(value)} - set(columns.values())
            if rest:
                found.unused.setdefault(path, set()).update(rest)
    return found


def _columns(row: Mapping[str, Any]) -> dict[str, str]:
    """The column of a row that is used for each key of `COLUMNS`; structures are not."""
    filled = {c.strip().lower(): c for c, v in row.items() if not (_is_empty(v) or isinstance(v, dict | list | bytes))}
    found = {key: next((filled[name] for name in names if name in filled), None) for key, names in COLUMNS.items()}
    return {key: column for key, column in found.items() if column is not None}


def _is_empty(value: object) -> bool:
    """Whether a cell says nothing: null, blank, or what pandas writes for nothing."""
    return value is None or not str(value).strip() or (isinstance(value, float) and math.isnan(value))


def _photo_metadata(path: Path, cells: Mapping[str, str], tree: Tree) -> PhotoMetadata:
    text = {key: clean(cell).strip() for key, cell in cells.items()}
    return PhotoMetadata(
        text.get("identity"),
        text.get("class"),
        text.get("caption"),
        _split(tree.path(path), text["split"]) if "split" in text else None,
        tree.path(_named(path, cells["mask"], tree)) if "mask" in cells else None,
    )


def _split(path: AnyPath, cell: str) -> str:
    split = split_name(cell)
    if split not in SPLITS.values():
        raise TamingError(f"{path} names a split '{cell}'. Use train, validation, test, or leave it out.")
    return split


def _named(path: Path, cell: str, tree: Tree) -> Path:
    """The file, relative to the folder, that a cell of the metadata file `path` names."""
    plain = _below(cell, path, tree.root)
    if plain is not None and tree.has_file(plain):
        return plain
    below = (_below(text, path, tree.root) for text in _spellings(cell))
    found = next((b for b in below if b is not None and tree.has_file(b)), None)
    if found is not None:
        return found
    if plain is None:
        raise TamingError(f"{tree.path(path)} names {clean(cell)}, which is not below {tree.root}. Name files relative "
                          "to the metadata file.")  # fmt: skip
    raise TamingError(f"{tree.path(path)} names {clean(cell)}, which does not exist. Add the photo or remove the row.")


def _spellings(cell: str) -> Iterator[str]:
    """What else the name of a file may be that a cell has in another system's letters."""
    for text in (cell, cell.strip(), cell.strip().replace("\\", "/"), str(path_of(cell))):
        yield from (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))


def _below(text: str, path: Path, root: AnyPath) -> Path | None:
    """What a cell of the metadata file `path` names, relative to the root and without `..`; None if it is elsewhere."""
    return _below_url(text, path, root) if is_remote(root) else _below_folder(root / path.parent / text, Path(root))


def _below_url(text: str, path: Path, root: UPath) -> Path | None:
    """Of an object in a store: by its URL, or relative to the metadata file."""
    url = f"{str(root).rstrip('/')}/"
    plain = os.path.normpath(text.removeprefix(url) if text.startswith(url) else path.parent / text)
    return None if plain.startswith(("../", "/")) or "://" in text.removeprefix(url) else Path(plain)


def _below_folder(path: Path, root: Path) -> Path | None:
    """Of a local file: below the root as it is written, or after links."""
    plain, base = os.path.normpath(path), os.path.normpath(root)
    if "\0" in plain:
        return Path(Path(plain).name.replace("\0", "?"))  # which cannot exist
    if not Path(plain).is_relative_to(base):
        plain, base = os.path.realpath(plain), os.path.realpath(base)
    return Path(plain).relative_to(base) if Path(plain).is_relative_to(base) else None


def _metadata_rows(path: AnyPath) -> list[dict[str, Any]]:
    rows: list[Any]
    try:
        rows = METADATA[path.suffix.lower()](path)
    except (ValueError, OSError, csv.Error, NotImplementedError) as error:
        raise TamingError(f"{path} cannot be read: {error}. Correct it or remove it.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise TamingError(f"{path} holds lines that are not JSON objects. Write one {{...}} a line.")
    return rows


def _read_jsonl(path: AnyPath) -> list[Any]:
    # Not splitlines(), which splits at signs that a JSON string may hold, such as U+2028.
    return [_json_row(line, n) for n, line in enumerate(read_text(path)[0].split("\n"), start=1) if line.strip()]


def _json_row(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}, {str(error).replace(': line 1', ',')}") from error


def _read_csv(path: AnyPath) -> list[dict[str, Any]]:
    """The rows of a table whose cells are separated by a comma, a semicolon or a tab, whichever its header has."""
    text = read_text(path)[0]
    first, _, rest = text.partition("\n")
    text = rest if first.strip('"').startswith("sep=") else text  # a line of Excel's
    delimiter = max(DELIMITERS, key=partial(_column_count, text.partition("\n")[0]))
    # Strict, so that a quote that is not closed does not take the rows after it into its cell.
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = list[dict[str | Any, Any]]()
    try:
        rows.extend(reader)
    except csv.Error as error:
        raise ValueError(f"{error} after row {len(rows)}; quotes go around cells, and are doubled in them") from error
    columns = [name.strip().lower() for name in reader.fieldnames or () if name.strip()]
    if twice := {name for name in columns if columns.count(name) > 1}:
        raise ValueError(f"it has the column {min(twice)} twice")
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(
                f"row {number} has more cells than the header; a cell that holds {delimiter!r} needs quotes"
            )
    return rows


def _column_count(header: str, delimiter: str) -> tuple[bool, int]:
    """How well a delimiter divides the header of a table: whether it leaves a column of file names; and the columns."""
    columns = next(csv.reader([header], delimiter=delimiter), list[str]())
    return any(column.strip().lower() in COLUMNS["file_name"] for column in columns), len(columns)


def _read_parquet(path: AnyPath) -> list[dict[str, Any]]:
    from pyarrow import parquet  # slow to import, and rarely needed

    pq: Any = parquet  # partly untyped
    return pq.read_table(io.BytesIO(read_file(path))).to_pylist()


METADATA: dict[str, Callable[[AnyPath], list[Any]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
