"""The sources of a stage on disk: a folder is listed once, into a Parquet file that is read a shard at a time."""

import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from taming_core.engine.processes import in_child
from taming_core.files import part_path, remove, replacing
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import source_of

T = TypeVar("T")

NAME = "manifest.parquet"  # in the folder of a stage's state
LARGE = 4000  # files of a folder; listing more takes longer than starting a process
GROUP = 4096  # rows of a row group, about; of ten million photos the file's own index stays small


@dataclass(frozen=True)
class Listing:
    """What the input of a stage was listed as."""

    rows: Path  # the manifest, which `keep` moves to its place
    count: int
    state: str  # changes when an input is added, removed or written
    notes: list[str]  # lines for the end of the stage


class Manifest(Generic[T]):
    """The `Sources` in a file that `write` has written."""

    def __init__(self, path: AnyPath, size: int, source: Callable[[schema.Row], T]) -> None:
        """Open no file yet: any process on any machine may have it.

        Args:
            path: the file.
            size: sources per shard.
            source: what a row of the file is; picklable.
        """
        self.path, self.size, self.source = path, size, source
        self._file = lru_cache(1)(self._open)
        self._rows = lru_cache(2)(self._read)  # what is prepared is ahead of what is written

    def __reduce__(self) -> tuple[Any, ...]:
        """As it was made, without the open file."""
        return Manifest, (self.path, self.size, self.source)

    def __len__(self) -> int:
        """The number of sources."""
        return self._file().metadata.num_rows

    def shard_count(self) -> int:
        """The number of shards that they make."""
        return -(-len(self) // self.size)

    def count(self, number: int) -> int:
        """The number of sources of one shard."""
        return min(self.size, len(self) - number * self.size)

    def shard(self, number: int) -> list[T]:
        """The sources of one shard."""
        return [self.source(row) for row in self._shard_rows(number)]

    def names(self) -> Iterator[list[str]]:
        """For each shard the `file_name` of every source."""
        for number in range(self.shard_count()):
            yield [row["file_name"] for row in self._shard_rows(number)]

    def _shard_rows(self, number: int) -> list[dict[str, Any]]:
        group, place = divmod(number, shards_per_group(self.size))
        return self._rows(group)[place * self.size : (place + 1) * self.size]

    def _open(self) -> Any:
        return pq.ParquetFile(source_of(self.path))

    def _read(self, group: int) -> list[dict[str, Any]]:
        return self._file().read_row_group(group).to_pylist()


def shards_per_group(size: int) -> int:
    """How many shards of `size` sources a row group holds.

    >>> shards_per_group(32), shards_per_group(5000)
    (128, 1)
    """
    return max(GROUP // size, 1)


def write(rows: Iterable[schema.Row], columns: pa.Schema, path: AnyPath, size: int) -> int:
    """Write the rows of a manifest, a row group at a time, and return how many there are.

    Args:
        rows: with the keys of `columns`.
        columns: of the file.
        path: of the file, which is written whole or not at all.
        size: sources per shard.
    """
    count = 0
    with replacing(path) as part, pq.ParquetWriter(part, columns, compression="zstd") as writer:
        for group in _chunks(iter(rows), size * shards_per_group(size)):
            writer.write_table(schema.table(group, columns))
            count += len(group)
    return count


def _chunks(rows: Iterator[schema.Row], size: int) -> Iterator[list[schema.Row]]:
    while chunk := list(islice(rows, size)):
        yield chunk


@contextmanager
def listed(folder: AnyPath, out: AnyPath, list_folder: Callable[[Path], Listing]) -> Generator[Listing]:
    """The listing of a folder, whose manifest is a temporary file until `keep` takes it.

    A large folder is listed by a process of its own, so that the memory of it is free when the models are loaded.

    Args:
        folder: of the input.
        out: the table to make, whose lock is held: what a crash leaves beside it is removed by the next run.
        list_folder: writes a manifest to a path; picklable.

    Raises:
        TamingError: what `list_folder` raises.
    """
    with ExitStack() as temporary:
        if isinstance(out, Path):
            path = part_path(Path(os.path.realpath(out)))
            temporary.callback(remove, path)
        else:
            path = Path(temporary.enter_context(TemporaryDirectory(prefix="taming-")), NAME)
        yield in_child(list_folder, path) if is_large(folder) else list_folder(path)


def is_large(folder: AnyPath) -> bool:
    """Whether a folder holds so many files that a process for them pays, or is in a store, where nobody knows."""
    if not isinstance(folder, Path):
        return True
    counts = accumulate(len(files) for _, _, files in os.walk(folder))
    return any(count > LARGE for count in counts)


def keep(listing: Listing, folder: AnyPath, size: int, source: Callable[[schema.Row], T]) -> Manifest[T]:
    """Move the manifest of a listing into the folder of the stage's state."""
    path = folder / NAME
    with replacing(path) as part:
        shutil.move(listing.rows, part)
    return Manifest(path, size, source)
