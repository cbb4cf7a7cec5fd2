"""The table of objects with what a person said of them, which the stages after `taming detect` read in its place."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa

from taming_core.files import remove
from taming_core.fingerprints import digest
from taming_core.overrides import table
from taming_core.overrides.apply import correct
from taming_core.overrides.matching import Correction, corrections
from taming_core.storage.filesystem import file_state, is_file
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema, shards
from taming_core.tables.parquet import reading

NAMED = 5  # photos in a line


class CorrectedObjects(NamedTuple):
    """The corrected table, and lines about its overrides for the end of a stage."""

    table: AnyPath | None  # None where nothing is corrected
    notes: list[str]


@contextmanager
def corrected(objects: AnyPath | None, overrides: AnyPath | None, out: AnyPath) -> Generator[CorrectedObjects]:
    """The objects with the overrides; after an error the table is kept, so that the same command goes on with it.

    Args:
        objects: the table of `taming detect`, if there is one.
        overrides: the table of overrides, see `table.find`.
        out: what the command writes, whose lock is held: the corrected table is among its resumable state.

    Raises:
        TamingError: a table is damaged, or another one.
    """
    if objects is None or overrides is None or not (said := table.read(overrides)):
        yield CorrectedObjects(None, [])
        return
    state = digest(text.encode() for text in (str(out), file_state(objects), *map(repr, said)))
    path = shards.state_folder(out, f"objects-{state}.parquet")
    notes = notes_of(overrides, said, write(objects, said, path))
    yield CorrectedObjects(path, notes)
    remove(path)


@contextmanager
def shown(path: AnyPath, overrides: AnyPath | None) -> Generator[CorrectedObjects]:
    """As `corrected`, for a command that shows a table, of objects or another one, and writes none.

    Raises:
        TamingError: as `corrected`; or overrides are named, and the table is another one than of objects.
    """
    is_objects = is_file(path) and schema.name_of(path) == "objects"
    found = table.find(path if is_objects else None, overrides)
    if found is None or not (said := table.read(found)):
        yield CorrectedObjects(None, [])
        return
    with TemporaryDirectory(prefix="taming-") as folder:
        place = Path(folder, path.name)
        yield CorrectedObjects(place, notes_of(found, said, write(path, said, place)))


def write(objects: AnyPath, said: Sequence[table.Override], path: AnyPath) -> list[Correction]:
    """Write the corrected table, if it is not there; returns the corrections that mean no object any more.

    Raises:
        TamingError: the table of objects is damaged, or another one.
    """
    of_photo, unmatched = corrections(said), list[Correction]()
    tables = _corrected_groups(objects, of_photo, unmatched)
    if is_file(path):
        for _ in tables:
            pass
    else:
        schema.write(tables, schema.OBJECTS, path)
    return unmatched + [c for left in of_photo.values() for c in left]


def _corrected_groups(
    objects: AnyPath, of_photo: dict[str, list[Correction]], unmatched: list[Correction]
) -> Iterator[pa.Table]:
    """The row groups of the table, none of which `taming detect` ends within a photo; photos leave `of_photo`."""
    with reading(objects), schema.open_table(objects, schema.OBJECTS) as file:
        reader: Any = file  # partly untyped
        for number in range(reader.num_row_groups):
            group = reader.read_row_group(number)
            if of_photo.keys().isdisjoint(group.column("photo_id").to_pylist()):
                yield group
                continue
            rows = list[schema.Row]()
            for _, of_file in groupby(group.to_pylist(), _file_name):
                photo = list(of_file)
                is_read = photo[0]["photo_width"] is not None  # a copy of it is not
                fixed = correct(photo, of_photo.pop(photo[0]["photo_id"], []) if is_read else [])
                rows += fixed.rows
                unmatched += fixed.unmatched
            yield schema.table(rows, schema.OBJECTS)


def _file_name(row: Mapping[str, Any]) -> str:
    return row["file_name"]


def notes_of(path: AnyPath, said: Sequence[table.Override], unmatched: Sequence[Correction]) -> list[str]:
    """How much a person said, and what of it means no object any more."""
    count = sum(map(len, corrections(said).values()))
    lines = [f"{path}: what a person said of {count} object{'s' if count != 1 else ''}"]
    if unmatched:
        named = ", ".join(f"{c.file_name} ({', '.join(c.fields)})" for c in unmatched[:NAMED])
        more = f" and {len(unmatched) - NAMED} more" if len(unmatched) > NAMED else ""
        lines += [f"{len(unmatched)} of them {'are' if len(unmatched) > 1 else 'is'} kept, but no object is there any "
                  f"more: {named}{more}"]  # fmt: skip
    return lines
