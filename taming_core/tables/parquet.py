"""Reading whole Parquet files, with types: those of pyarrow leave most arguments unknown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

pq: Any = parquet


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, all of its columns or some."""
    return pq.read_table(path, columns=None if columns is None else list(columns))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a Parquet file as dicts."""
    return read_table(path, columns).to_pylist()


def read_column(path: Path, name: str) -> list[Any]:
    """The values of one column of a Parquet file."""
    return read_table(path, [name]).column(name).to_pylist()
