"""The table of what a person said of objects: reading, appending a row, and taking rows back; no stage writes it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from taming_core.errors import TamingError
from taming_core.locks import exclusive
from taming_core.photos.masks import Box
from taming_core.storage.filesystem import is_file
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import source_of

NAME = "overrides.parquet"  # beside the table of objects
WAIT = 10.0  # seconds for another process to finish writing a row
Field = Literal["decision", "mask", "class", "caption"]
REJECT, RESTORE = "reject", "restore"  # the texts of a decision


@dataclass(frozen=True)
class Override:
    """One thing that a person said of one object; of those of one field the last counts."""

    photo_id: str  # content of the photo, wherever it lies
    file_name: str  # where it was then, for people
    box_xyxy: Box  # of the object then, in pixels of the upright photo
    seen_class: str | None  # its class then
    field: Field
    text: str | None  # the decision, the class, or the caption with <object>; None of a mask
    mask_png: bytes | None  # the mask that is said; of a decision the one that was seen, if there was one


def beside(objects: AnyPath) -> AnyPath:
    """Where the overrides of a table of objects are, if there are any.

    >>> beside(Path("data/objects.parquet")).as_posix()
    'data/overrides.parquet'
    """
    return objects.with_name(NAME)


def find(objects: AnyPath | None, overrides: AnyPath | None) -> AnyPath | None:
    """The table to honour: the one that is named, or the one beside the objects; None if there is none there.

    Raises:
        TamingError: the named one does not exist, or there are no objects that it could speak of.
    """
    if overrides is not None and objects is None:
        raise TamingError("--overrides has no effect without a table of objects. Name that table too, or leave "
                          "--overrides out.")  # fmt: skip
    if overrides is not None and not is_file(overrides):
        raise TamingError(f"There is no {overrides}. Name the table of overrides, or leave --overrides out.")
    if overrides is not None or objects is None:
        return overrides
    return beside(objects) if is_file(beside(objects)) else None


def read(path: AnyPath | None) -> list[Override]:
    """What a person said, in that order; nothing if there is no such table.

    Raises:
        TamingError: the file is another one, or is damaged.
    """
    if path is None or not is_file(path):
        return []
    try:
        with pq.ParquetFile(source_of(path)) as file:
            reader: Any = file  # partly untyped
            if (file.schema_arrow.metadata or {}).get(b"taming.table") != b"overrides":
                raise ValueError(path)
            rows: list[dict[str, Any]] = reader.read(columns=schema.OVERRIDES.names).to_pylist()
        return [_override(row) for row in rows]
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the operating system
            raise
        raise TamingError(f"{path} is no table of overrides, or is damaged. Get it again from where it is kept, such "
                          "as git, or move it away to go without.") from error  # fmt: skip


def _override(row: dict[str, Any]) -> Override:
    """A row; raises ValueError if it is about an unknown field."""
    if row["field"] not in get_args(Field):
        raise ValueError(row["field"])
    x0, y0, x1, y1 = row.pop("box_xyxy")
    return Override(**row, box_xyxy=(x0, y0, x1, y1))


def write(path: Path, overrides: Sequence[Override]) -> None:
    """Write the table, whole or not at all; equal rows make equal bytes."""
    rows = [asdict(o) | {"box_xyxy": list(o.box_xyxy)} for o in overrides]
    schema.write([schema.table(rows, schema.OVERRIDES)], schema.OVERRIDES, path)


def change(path: Path, how: Callable[[list[Override]], Sequence[Override]]) -> list[Override]:
    """Change the table while no other process writes it; returns what it holds then.

    Raises:
        TamingError: it is another file, or another process holds it for long.
    """
    with exclusive(path, wait=WAIT):
        changed = list(how(read(path)))
        write(path, changed)
        return changed


def append(path: Path, *said: Override) -> list[Override]:
    """Add what a person said; see `change`."""
    return change(path, lambda overrides: [*overrides, *said])


def undo(path: Path, said: Sequence[Override]) -> list[Override]:
    """Take back what was said: of each the last equal row is removed, so that what was said before counts again."""
    return change(path, lambda overrides: without(overrides, said))


def without(overrides: Sequence[Override], said: Sequence[Override]) -> list[Override]:
    """The overrides without the last one that equals each of `said`."""
    left = list(reversed(overrides))
    for override in said:
        if override in left:
            left.remove(override)
    return left[::-1]
