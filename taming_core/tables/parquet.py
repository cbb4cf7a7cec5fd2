"""Reading Parquet files on disk or in a store, with types: those of pyarrow leave most arguments unknown."""

import os
from bisect import bisect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.parquet import AlreadyBufferedFile
from fsspec.utils import merge_offset_ranges
from pyarrow import parquet

from taming_core.errors import TamingError
from taming_core.storage.filesystem import explaining, filesystem
from taming_core.storage.paths import AnyPath
from taming_core.storage.reading import read_object

pq: Any = parquet
ROWS = 4096  # of a column that are read at once

FOOTER = 64 * 1024  # bytes at a file's end that are read first; most footers are smaller
GAP = 64 * 1024  # bytes between two parts of a file in a store that are read along rather than by two requests
BLOCK = 64 * 1024 * 1024  # bytes of one request


@contextmanager
def reading(path: AnyPath) -> Generator[None]:
    """Turns what pyarrow raises in the block for a damaged file into a TamingError."""
    try:
        if isinstance(path, Path):
            yield
        else:
            with explaining(path):
                yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the operating system
            raise
        raise TamingError(f"{path} is damaged: {' '.join(str(error).split())[:200].rstrip('.')}. Remove it, and run "
                          "the command again that wrote it.") from error  # fmt: skip


def source_of(path: AnyPath) -> Any:
    """What pyarrow opens for a path: of a file in a store it fetches the blocks that are read, and what follows them.

    Raises:
        TamingError: the store cannot be reached, or has no such file.
    """
    if isinstance(path, Path):
        return path
    with explaining(path):
        return filesystem(path).open(path.path, "rb")


def read_table(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, all of its columns or some.

    Raises:
        TamingError: the file is damaged.
    """
    with reading(path):
        if isinstance(path, Path):
            return pq.read_table(path, columns=None if columns is None else list(columns))
        if columns is None:
            return pq.read_table(pa.BufferReader(read_object(path)))
        metadata = metadata_of(read_footer(path))
        return read_groups(path, metadata, range(metadata.num_row_groups), columns)


def read_groups(path: AnyPath, metadata: Any, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Some columns of some row groups; of a file in a store nothing else is fetched.

    Args:
        path: the file.
        metadata: its pyarrow.parquet.FileMetaData.
        groups: numbers of row groups.
        columns: names of columns, without those inside of them.
    """
    source: Any = path if isinstance(path, Path) else _fetched(path, metadata, groups, columns)
    with pq.ParquetFile(source, metadata=metadata) as file:
        return file.read_row_groups(list(groups), columns=list(columns))


def _fetched(path: Any, metadata: Any, groups: Sequence[int], columns: Sequence[str]) -> AlreadyBufferedFile:
    """A file of which the parts that hold these columns have been fetched, in as few requests as make sense."""
    spans = sorted(span for group in groups for span in _spans(metadata.row_group(group), frozenset(columns)))
    names, starts, ends = ([path.path] * len(spans), *map(list, zip(*spans, strict=True))) if spans else ([], [], [])
    names, starts, ends = merge_offset_ranges(names, starts, ends, max_gap=GAP, max_block=BLOCK)
    data = filesystem(path).cat_ranges(names, starts, ends, on_error="raise")
    parts = dict(zip(zip(starts, ends, strict=True), data, strict=True))
    size = max((end for end in ends if end is not None), default=0)
    return AlreadyBufferedFile(fs=None, path=path.path, cache_type="parts", cache_options={"data": parts}, size=size)


def _spans(group: Any, columns: frozenset[str]) -> Iterator[tuple[int, int]]:
    """First byte of each column chunk of a row group, and the byte after its last."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema.partition(".")[0] in columns:
            start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            yield start, start + chunk.total_compressed_size


def read_footer(path: AnyPath) -> bytes:
    """The end of a Parquet file: its metadata, with their length in 4 bytes and the magic number in 4.

    Raises:
        TamingError: the file is cut off, damaged, or none of Parquet.
    """
    with reading(path), source_of(path) if not isinstance(path, Path) else path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = _tail(file, size, FOOTER)
        length = int.from_bytes(end[-8:-4], "little") + 8
        if end[-4:] != b"PAR1" or length > size:
            raise TamingError(f"{path} is not a Parquet file, or is damaged. Run the command again that wrote it.")
        return end[-length:] if length <= len(end) else _tail(file, size, length)


def _tail(file: Any, size: int, length: int) -> bytes:
    file.seek(max(0, size - length))
    return file.read()


def metadata_of(footer: bytes) -> Any:
    """The pyarrow.parquet.FileMetaData in what `read_footer` returns."""
    return pq.read_metadata(pa.BufferReader(footer))


def read_rows(path: AnyPath, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a Parquet file as dicts."""
    return read_table(path, columns).to_pylist()


def read_column(path: AnyPath, name: str) -> list[Any]:
    """The values of one column of a Parquet file."""
    return read_table(path, [name]).column(name).to_pylist()


def iter_column(path: AnyPath, name: str) -> Iterator[Any]:
    """The values of one column of a Parquet file, of which few are in memory at a time."""
    with reading(path), pq.ParquetFile(source_of(path)) as file:
        for batch in file.iter_batches(columns=[name], batch_size=ROWS):
            yield from batch.column(0).to_pylist()


def column_reader(path: AnyPath, name: str) -> Callable[[Sequence[int]], list[Any]]:
    """A function from row numbers to the values of one column there; it reads the row groups that hold them."""
    metadata = metadata_of(read_footer(path))
    sizes = (metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    starts = list(accumulate(sizes, initial=0))

    def read(numbers: Sequence[int]) -> list[Any]:
        groups = sorted({bisect(starts, number) - 1 for number in numbers})
        with reading(path):
            columns: dict[int, Any] = {
                group: read_groups(path, metadata, [group], [name]).column(name) for group in groups
            }
        places = [(bisect(starts, number) - 1, number) for number in numbers]
        return [columns[group][number - starts[group]].as_py() for group, number in places]

    return read
