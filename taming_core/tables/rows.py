"""Random access to training rows on disk."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from taming_core.errors import TamingError
from taming_core.tables import schema
from taming_core.tables.parquet import read_column, reading

CACHED = 16  # row groups kept in memory
ALL_COLUMNS = tuple(schema.ROWS.names)
IMAGE_COLUMNS = ("image", "mask", "subject")


@dataclass(frozen=True)
class Bucket:
    """The rows whose images are of one size."""

    width: int  # pixels
    height: int
    objects: NDArray[np.int64]  # indices of the rows that have a subject
    regularization: NDArray[np.int64]  # indices of the rows that have a caption only


@dataclass(frozen=True)
class Rows:
    """The rows of one split, read from disk on access: rows[i] is a dict, its images encoded bytes.

    Cheap to pickle; the columns that sampling needs are read once and kept.
    """

    files: tuple[Path, ...]
    starts: tuple[int, ...]  # index of each row group's first row, and last the number of all rows
    groups: tuple[tuple[int, int, int], ...]  # of each row group: index of its file, its index in the file, mtime in ns
    excluded: frozenset[int] = frozenset()  # indices of rows with a subject that are views of it, and nothing else

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, i: SupportsIndex) -> dict[str, Any]:
        return self.read(i, ALL_COLUMNS)

    def read(self, i: SupportsIndex, columns: tuple[str, ...]) -> dict[str, Any]:
        """Some columns of a row; the others are not read from disk.

        Raises:
            IndexError: there is no such row.
        """
        if not -len(self) <= int(i) < len(self):
            raise IndexError(i)
        index = int(i) % len(self)
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        file, number, mtime = self.groups[group]
        table = _read_group(self.files[file], number, mtime, columns)
        row = table.slice(index - self.starts[group], 1).to_pylist()[0]
        return {**row, **{name: row[name] and row[name]["bytes"] for name in IMAGE_COLUMNS if name in row}}

    def column(self, name: str) -> list[Any]:
        """One column of all rows; for columns that fit in memory."""
        return [value for path in self.files for value in read_column(path, name)]

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """Indices of the rows that have a subject, without those that are excluded."""
        with_subject = np.flatnonzero(~np.array(self.column("regularization"), dtype=bool))
        return with_subject[~np.isin(with_subject, sorted(self.excluded))] if self.excluded else with_subject

    @cached_property
    def regularization(self) -> NDArray[np.int64]:
        """Indices of the rows that have a caption only."""
        return np.flatnonzero(np.array(self.column("regularization"), dtype=bool))

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The rows by the size of their images, in order of width."""
        sizes = np.array([self.column("width"), self.column("height")], dtype=np.int64)
        buckets: list[Bucket] = []
        for w, h in np.unique(sizes, axis=1).T:
            fits = (sizes[0] == w) & (sizes[1] == h)
            members = (indices[fits[indices]] for indices in (self.objects, self.regularization))
            buckets.append(Bucket(int(w), int(h), *members))
        return tuple(buckets)

    @cached_property
    def companions(self) -> dict[int, list[int]]:
        """For each row with a subject whose photo shows others, the indices of their rows."""
        photos, of_photo = self.column("photo_id"), defaultdict[str, list[int]](list)
        for i in self.objects:
            of_photo[photos[i]].append(int(i))
        return {i: [j for j in rows if j != i] for rows in of_photo.values() if len(rows) > 1 for i in rows}

    @cached_property
    def _ids(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """All row_ids sorted, and their indices: a tenth of the memory of a dict."""
        ids = np.array(self.column("row_id"), dtype=np.bytes_)
        order = np.argsort(ids)
        return ids[order], order

    def find(self, row_id: str) -> int:
        """The index of the row with this row_id.

        Raises:
            KeyError: no row of this split has it.
        """
        ids, order = self._ids
        at = int(np.searchsorted(ids, row_id.encode()))
        if at == len(ids) or ids[at] != row_id.encode():
            raise KeyError(row_id)
        return int(order[at])


@lru_cache(maxsize=CACHED)
def _read_group(path: Path, number: int, mtime: int, columns: tuple[str, ...]) -> pa.Table:  # noqa: ARG001  see `groups`
    with reading(path), pq.ParquetFile(path) as file:
        reader: Any = file  # partly untyped
        return reader.read_row_group(number, columns=list(columns))


def load_rows(folder: Path, split: str) -> Rows:
    """Open one split of a folder that `taming materialize` made; a split without rows is empty.

    Raises:
        TamingError: the folder does not exist, holds no rows, or rows of another version.
    """
    if not any(folder.glob("*.parquet")):
        if dropped_table(folder).is_file():
            raise TamingError(f"{folder} holds no rows: all were dropped. `taming inspect {folder}` shows why.")
        raise TamingError(f"{folder} holds no rows. Run `taming materialize` first, or name another folder.")
    files = tuple(sorted(folder.glob(f"{split}-*.parquet")))
    starts, groups = [0], list[tuple[int, int, int]]()
    for number, path in enumerate(files):
        with schema.open_table(path, schema.ROWS) as file:
            for group in range(file.num_row_groups):
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
                groups.append((number, group, path.stat().st_mtime_ns))
    return Rows(files, tuple(starts), tuple(groups))


def dropped_table(folder: Path) -> Path:
    """The table of dropped rows, beside the folder of kept ones, so that whatever reads the folder reads no others.

    >>> dropped_table(Path("data/rows")).as_posix()
    'data/rows-dropped.parquet'
    """
    return folder.with_name(f"{folder.name}-dropped.parquet")


def require_own_rows(folder: Path) -> None:
    """Raises TamingError if a table in a folder, or the `dropped_table` beside it, is something else than rows.

    Other data sets have files of the same names, such as train-00000-of-00001.parquet.
    """
    for path in (*sorted(folder.glob("*.parquet")), dropped_table(folder)):
        if path.exists() and schema.name_of(path) != "rows":
            raise TamingError(f"{path}, which would be replaced, is something else than rows, or is damaged. Name "
                              "another folder with --out, or remove it.")  # fmt: skip


def concatenate(first: Rows, second: Rows) -> Rows:
    """The rows of both, those of `second` numbered after those of `first`."""
    starts = (*first.starts, *(len(first) + start for start in second.starts[1:]))
    groups = (*first.groups, *((len(first.files) + file, group, mtime) for file, group, mtime in second.groups))
    excluded = first.excluded | {len(first) + n for n in second.excluded}
    return Rows((*first.files, *second.files), starts, groups, excluded)
