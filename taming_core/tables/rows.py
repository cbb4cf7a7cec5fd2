"""Reading training rows at random, from disk as they are asked for."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from taming_core.errors import TamingError
from taming_core.tables import schema

CACHED = 8  # row groups that reading keeps in memory
IMAGE_COLUMNS = ("image", "mask", "subject")


@dataclass(frozen=True)
class Bucket:
    """The rows whose images are of one size."""

    width: int  # pixels
    height: int
    objects: NDArray[np.int64]  # numbers of the rows that have a subject
    regularization: NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The rows of one split, read from disk as they are asked for: rows[i] is a dict, its pictures encoded bytes.

    Cheap to send to another process; the columns that choose among rows are read once and kept.
    """

    files: tuple[Path, ...]
    starts: tuple[int, ...]  # number of each row group's first row, and of all rows
    groups: tuple[tuple[int, int, int], ...]  # of each row group: its file, its place in there, the file's mtime in ns

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        place = i % len(self)
        group = int(np.searchsorted(self.starts, place, side="right")) - 1
        file, number, mtime = self.groups[group]
        row = _read_group(self.files[file], number, mtime).slice(place - self.starts[group], 1).to_pylist()[0]
        return {**row, **{name: row[name] and row[name]["bytes"] for name in IMAGE_COLUMNS}}

    def column(self, name: str) -> list[Any]:
        """One column of all rows; for small ones."""
        return [v for path in self.files for v in pq.read_table(path, columns=[name]).column(name).to_pylist()]

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """Numbers of the rows that have a subject."""
        return np.flatnonzero(~np.array(self.column("regularization"), dtype=bool))

    @cached_property
    def regularization(self) -> NDArray[np.int64]:
        """Numbers of the rows that have a caption only."""
        return np.flatnonzero(np.array(self.column("regularization"), dtype=bool))

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The rows by the size of their images, narrow before wide."""
        sizes = np.array([self.column("width"), self.column("height")], dtype=np.int64)
        found = []
        for w, h in np.unique(sizes, axis=1).T:
            here = (sizes[0] == w) & (sizes[1] == h)
            found.append(Bucket(int(w), int(h), *(kind[here[kind]] for kind in (self.objects, self.regularization))))
        return tuple(found)

    @cached_property
    def _ids(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """All row_ids in order, and where they stand: a tenth of the memory of a dict."""
        ids = np.array(self.column("row_id"), dtype=np.bytes_)
        order = np.argsort(ids)
        return ids[order], order

    def find(self, row_id: str) -> int:
        """The number of the row with this row_id.

        Raises:
            KeyError: it is not in this split.
        """
        ids, order = self._ids
        at = int(np.searchsorted(ids, row_id.encode()))
        if at == len(ids) or ids[at] != row_id.encode():
            raise KeyError(row_id)
        return int(order[at])


@lru_cache(maxsize=CACHED)
def _read_group(path: Path, number: int, mtime: int) -> pa.Table:  # noqa: ARG001  a changed file is another key
    with pq.ParquetFile(path) as file:
        return file.read_row_group(number)


def load_rows(folder: Path, split: str) -> Rows:
    """Open one split of a folder that `taming materialize` made; a split without rows is empty.

    Raises:
        TamingError: the folder is absent, holds no rows, or those of another version.
    """
    if not any(folder.glob("*.parquet")):
        raise TamingError(f"{folder} holds no rows. Run `taming materialize` first, or name the folder that you mean.")
    files = tuple(sorted(folder.glob(f"{split}-*.parquet")))
    starts, groups = [0], []
    for number, path in enumerate(files):
        with schema.open_table(path, schema.ROWS) as file:
            for group in range(file.num_row_groups):
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
                groups.append((number, group, path.stat().st_mtime_ns))
    return Rows(files, tuple(starts), tuple(groups))


def concatenate(first: Rows, second: Rows) -> Rows:
    """The rows of both, those of `second` numbered after those of `first`."""
    starts = (*first.starts, *(len(first) + start for start in second.starts[1:]))
    groups = (*first.groups, *((len(first.files) + file, group, mtime) for file, group, mtime in second.groups))
    return Rows((*first.files, *second.files), starts, groups)
