"""Metadata files of a photo folder: identity, class, caption and split of each photo."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError
from taming_core.photos.files import file_name, files_below


@dataclass(frozen=True)
class PhotoMetadata:
    """One photo's row in the folder's metadata file."""

    identity: str | None = None
    noun: str | None = None  # column `class`
    caption: str | None = None
    split: str | None = None


def read_metadata(folder: Path) -> dict[str, PhotoMetadata]:
    """The rows of metadata.jsonl, .csv or .parquet by file name, which is relative to the metadata file's folder.

    The columns are file_name and any of identity, class, caption, split. Others are ignored: files written for
    `datasets` often hold more.

    Raises:
        TamingError: a row has no file name, names a missing file, or names a file a second time.
    """
    metadata: dict[str, PhotoMetadata] = {}
    for path in sorted(p for p in files_below(folder) if p.stem == "metadata" and p.suffix in METADATA):
        for number, row in enumerate(_metadata_rows(path), start=1):
            if not row.get("file_name"):
                raise TamingError(f"{path}, row {number}, has no file_name. Add it to each row.")
            name = file_name(path.parent / str(row["file_name"]), folder)
            if not (folder / name).is_file():
                raise TamingError(f"{path} names {name}, which does not exist. Add the photo or remove the row.")
            if name in metadata:
                raise TamingError(f"{path} names {name} a second time. Remove one of the rows.")
            metadata[name] = PhotoMetadata(
                *(_text(row.get(column)) for column in ("identity", "class", "caption", "split"))
            )
    return metadata


def _metadata_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[Any]
    try:
        rows = METADATA[path.suffix](path)
    except (ValueError, OSError) as error:
        raise TamingError(f"{path} cannot be read: {error}. Correct it or remove it.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise TamingError(f"{path} holds lines that are not JSON objects. Write one {{...}} a line.")
    return rows


def _text(value: object) -> str | None:
    """A cell as text; None for an empty one."""
    return str(value) if value not in (None, "") else None


def _read_jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet  # slow to import, and rarely needed

    pq: Any = parquet  # partly untyped
    return pq.read_table(path).to_pylist()


METADATA: dict[str, Callable[[Path], list[Any]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
