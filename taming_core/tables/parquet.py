"""Reading whole Parquet files, with types: those of pyarrow leave most arguments unknown."""

from bisect import bisect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from taming_core.errors import TamingError

pq: Any = parquet


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turns what pyarrow raises in the block for a damaged file into a TamingError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the operating system
            raise
        raise TamingError(f"{path} is damaged: {' '.join(str(error).split())[:200].rstrip('.')}. Remove it, and run "
                          "the command again that wrote it.") from error  # fmt: skip


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, all of its columns or some.

    Raises:
        TamingError: the file is damaged.
    """
    with reading(path):
        return pq.read_table(path, columns=None if columns is None else list(columns))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a Parquet file as dicts."""
    return read_table(path, columns).to_pylist()


def read_column(path: Path, name: str) -> list[Any]:
    """The values of one column of a Parquet file."""
    return read_table(path, [name]).column(name).to_pylist()


def column_reader(path: Path, name: str) -> Callable[[Sequence[int]], list[Any]]:
    """A function from row numbers to the values of one column there; it reads the row groups that hold them."""
    file: Any = pq.ParquetFile(path)
    sizes = (file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))
    starts = list(accumulate(sizes, initial=0))

    def read(numbers: Sequence[int]) -> list[Any]:
        groups = sorted({bisect(starts, number) - 1 for number in numbers})
        with reading(path):
            columns = {group: file.read_row_group(group, [name]).column(name) for group in groups}
        places = [(bisect(starts, number) - 1, number) for number in numbers]
        return [columns[group][number - starts[group]].as_py() for group, number in places]

    return read
