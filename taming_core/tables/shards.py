"""Resumable work: a finished shard is final, and a rerun continues at the first unfinished one."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from taming_core.drop_reasons import reason_of
from taming_core.tables import schema
from taming_core.tables.parquet import read_table

T = TypeVar("T")

RUNS = Path("runs")  # resumable state; not an output, safe to delete


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
    """`write_shards` for items that come in chunks, such as the batches of a table that does not fit in memory."""
    done = 0
    for number, chunk in enumerate(chunks):
        path = folder / f"{number:06d}.parquet"
        if not path.exists():
            schema.write([schema.table(make(chunk), expected)], expected, path)
        done += len(chunk)
        yield done


def join(folder: Path, expected: pa.Schema, out: Path) -> Counter[str]:
    """Write all shards into one table, count its rows per drop reason, and remove the shards."""
    reasons: Counter[str] = Counter()

    def tables() -> Iterator[pa.Table]:
        for path in shard_paths(folder):
            t = read_table(path)
            reasons.update(reason_of(r) for r in t.column("drop_reason").to_pylist())
            yield t

    schema.write(tables(), expected, out)
    shutil.rmtree(folder, ignore_errors=True)
    return reasons
