"""Rows of a table by their numbers, without those before them."""

from bisect import bisect, bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa

from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import reading

RowsBetween = Callable[[int, int], Sequence[schema.Row]]
KEPT = 2  # row groups in memory: ranges are read in their order


def range_reader(path: AnyPath, expected: pa.Schema, columns: Sequence[str]) -> RowsBetween:
    """A function from the first row's number, and one past the last, to these rows with some columns.

    Raises:
        TamingError: as `schema.open_table`.
    """
    file: Any = schema.open_table(path, expected)  # partly untyped
    sizes = (file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))
    starts = list(accumulate(sizes, initial=0))

    @lru_cache(maxsize=KEPT)
    def group(number: int) -> pa.Table:
        with reading(path):
            return file.read_row_group(number, columns=list(columns))

    def read(start: int, stop: int) -> Sequence[schema.Row]:
        first = bisect(starts, start) - 1
        groups = [group(number) for number in range(first, bisect_left(starts, stop))]
        return pa.concat_tables(groups).slice(start - starts[first], stop - start).to_pylist()

    return read
