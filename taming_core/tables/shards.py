"""Work that survives a crash: a finished shard is final, the same command goes on at the first unfinished one."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from taming_core.tables import schema
from taming_core.tables.drop_counts import reason_of

T = TypeVar("T")

RUNS = Path("runs")  # resumable state; not an output, safe to delete


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards in order."""
    return sorted(folder.glob("*.parquet"))


def write_shards(
    items: Sequence[T], size: int, folder: Path, expected: pa.Schema, make: Callable[[list[T]], Sequence[schema.Row]]
) -> Iterator[int]:
    """Turn `size` items at a time into one shard of rows each, and yield how many items are done.

    A shard that exists is skipped: it was renamed into place only when it was complete.
    """
    chunks = (list(items[start : start + size]) for start in range(0, len(items), size))
    return write_chunks(chunks, folder, expected, make)


def write_chunks(
    chunks: Iterable[list[T]], folder: Path, expected: pa.Schema, make: Callable[[list[T]], Sequence[schema.Row]]
) -> Iterator[int]:
    """`each` for items that come in chunks already, such as the batches of a table that does not fit in memory."""
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
            t = pq.read_table(path)
            reasons.update(reason_of(r) for r in t.column("drop_reason").to_pylist())
            yield t

    schema.write(tables(), expected, out)
    shutil.rmtree(folder, ignore_errors=True)
    return reasons
