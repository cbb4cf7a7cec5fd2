"""The engine of one machine: sources are prepared ahead of the models, and shards are written behind them."""

from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

from taming_core.drop_reasons import reason_of
from taming_core.engine.out_of_memory import Compute, halving
from taming_core.engine.work import ShardDone, ShardWork
from taming_core.engine.workers import preparing
from taming_core.tables import schema
from taming_core.tables.parquet import read_column
from taming_core.tables.shards import shard_number, shard_path, shard_paths

S = TypeVar("S")
R = TypeVar("R")


def run(work: ShardWork[S, R], workers: int) -> Generator[ShardDone]:
    """Make the shards that are missing, and yield all in their order; one is written while the next is made.

    Args:
        work: the shards.
        workers: processes that prepare sources; 0 for threads of this one.

    Raises:
        TamingError: there is too little memory, or what the models raise.
    """
    numbers, finished = range(work.sources.shard_count()), finished_shards(work)
    sources = ((n, source) for n in numbers if n not in finished for source in work.sources.shard(n))
    with preparing(work.prepare, workers, work.batch_size) as preparer, ThreadPoolExecutor(1) as writer:
        shards = groupby(preparer.ahead(sources), key=_number)
        compute: Compute[tuple[S, R | str]] | None = None
        written: deque[Future[ShardDone]] = deque()
        for number in numbers:
            if number in finished:
                write = partial(count_shard, work, number, work.sources.count(number))
            else:
                _, prepared = next(shards)  # whose first sources are prepared while the models are loaded
                compute = compute or halving(work.load())
                write = partial(write_shard, work, number, *shard_rows(work, compute, (p[1:] for p in prepared)))
            written.append(writer.submit(write))
            if len(written) > 1:
                yield written.popleft().result()
        yield from (future.result() for future in written)


def _number(prepared: tuple[int, Any, Any]) -> int:
    return prepared[0]


def finished_shards(work: ShardWork[Any, Any]) -> set[int]:
    """The numbers of the shards that are there."""
    return {shard_number(path) for path in shard_paths(work.folder)}


def make_shard(
    work: ShardWork[S, R], number: int, compute: Compute[tuple[S, R | str]], prepared: Iterable[tuple[S, R | str]]
) -> ShardDone:
    """Compute and write one shard.

    Args:
        work: the shards.
        number: of the shard.
        compute: what `work.load` returned, as `halving` makes it.
        prepared: its sources, each as `work.prepare` returned it.
    """
    return write_shard(work, number, *shard_rows(work, compute, prepared))


def shard_rows(
    work: ShardWork[S, R], compute: Compute[tuple[S, R | str]], prepared: Iterable[tuple[S, R | str]]
) -> tuple[list[schema.Row], int]:
    """The rows of one shard, and the number of its sources, of which a batch is in memory at a time."""
    pairs, rows, count = iter(prepared), list[schema.Row](), 0
    while batch := list(islice(pairs, work.batch_size)):
        rows += compute(batch)
        count += len(batch)
    return rows, count


def write_shard(work: ShardWork[Any, Any], number: int, rows: list[schema.Row], sources: int) -> ShardDone:
    """Write a shard, whole or not at all."""
    path = shard_path(work.folder, number)
    schema.write([schema.table(rows, work.expected)], work.expected, path)
    return ShardDone(number, sources, Counter(reason_of(row["drop_reason"]) for row in rows))


def count_shard(work: ShardWork[Any, Any], number: int, sources: int) -> ShardDone:
    """A shard that was made before."""
    reasons = read_column(shard_path(work.folder, number), "drop_reason")
    return ShardDone(number, sources, Counter(map(reason_of, reasons)))
