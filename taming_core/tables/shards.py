"""Resumable work: a finished shard is final, and a rerun continues at the first unfinished one."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from taming_core.drop_reasons import reason_of
from taming_core.errors import TamingError
from taming_core.tables import schema
from taming_core.tables.parquet import read_table

T = TypeVar("T")

RUNS = Path("runs")  # resumable state; not an output, safe to delete


def require_runs() -> None:
    """Raises TamingError if resumable state cannot be written below the working directory."""
    place = RUNS.absolute() if os.path.lexists(RUNS) else Path.cwd()
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise TamingError(f"{place} allows no new files, and resumable state goes to {RUNS} there. Run the command in "
                          "a folder that you may write.")  # fmt: skip


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards in order."""
    return sorted(folder.glob("*.parquet"))


def write_shards(
    items: Sequence[T], size: int, folder: Path, expected: pa.Schema, make: Callable[[list[T]], Sequence[schema.Row]]
) -> Iterator[int]:
    """Make one shard of rows from every `size` items, and yield the number of items done.

    An existing shard is skipped: shards are renamed into place when they are complete.
    """
    chunks = (list(items[start : start + size]) for start in range(0, len(items), size))
    return write_chunks(chunks, folder, expected, make)


def write_chunks(
    chunks: Iterable[list[T]], folder: Path, expected: pa.Schema, make: Callable[[list[T]], Sequence[schema.Row]]
) -> Iterator[int]:
    """`write_shards` for items that come in chunks, such as the batches of a table that does not fit in memory.

    Raises:
        TamingError: when all are done, a shard is missing.
    """
    done, paths = 0, list[Path]()
    for number, chunk in enumerate(chunks):
        paths.append(path := folder / f"{number:06d}.parquet")
        if not path.exists():
            schema.write([schema.table(make(chunk), expected)], expected, path)
        done += len(chunk)
        yield done
    if paths != shard_paths(folder):
        raise TamingError(f"{folder} should hold {len(paths)} shards and holds {len(shard_paths(folder))}: another "
                          "program changed it. Remove that folder, and run the same command again.")  # fmt: skip


def join(folder: Path, expected: pa.Schema, out: Path, names: Sequence[str]) -> Counter[str]:
    """Write all shards into one table, count its rows per drop reason, and remove the shards.

    Args:
        folder: of the shards.
        expected: the schema of the table.
        out: the table to write.
        names: the `file_name` of every input photo, each of which must be in the table.

    Raises:
        TamingError: a photo is missing; then the shards are kept, and `out` is unchanged.
    """
    reasons: Counter[str] = Counter()
    found = set[str]()

    def tables() -> Iterator[pa.Table]:
        for path in shard_paths(folder):
            t = read_table(path)
            reasons.update(reason_of(r) for r in t.column("drop_reason").to_pylist())
            found.update(map(str, t.column("file_name").to_pylist()))
            yield t
        require_photos(found, names, folder)

    schema.write(tables(), expected, out)
    shutil.rmtree(folder, ignore_errors=True)
    return reasons


def require_photos(found: set[str], names: Sequence[str], folder: Path) -> None:
    """Check that the shards of `folder` have rows of all photos, and of no others.

    Raises:
        TamingError: they do not; the message names one.
    """
    if wrong := sorted(found ^ set(names)):
        raise TamingError(f"Of {len(set(names))} photos {len(found & set(names))} are in the shards of {folder}; "
                          f"{wrong[0]} differs. Remove that folder, and run the same command again.")  # fmt: skip
