"""Random access to training rows on disk or in a store."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from taming_core.errors import TamingError
from taming_core.storage.cache import cache_dir, local_copy
from taming_core.storage.filesystem import is_file
from taming_core.storage.paths import AnyPath, is_remote
from taming_core.tables import schema
from taming_core.tables.parquet import metadata_of, read_column, read_footer, read_groups, reading
from taming_core.tables.row_files import row_files

R = TypeVar("R")

CACHED = 16  # row groups kept in memory
ALL_COLUMNS = tuple(schema.ROWS.names)
IMAGE_COLUMNS = ("image", "mask", "subject")
SMALL_COLUMNS = tuple(name for name in ALL_COLUMNS if name not in IMAGE_COLUMNS)
REQUESTS = 16  # files of a store that are asked for something at once
FILES = 4096  # of a store, whose footers and small columns are kept in memory


@dataclass(frozen=True)
class Bucket:
    """The rows whose images are of one size."""

    width: int  # pixels
    height: int
    objects: NDArray[np.int64]  # indices of the rows that have a subject
    regularization: NDArray[np.int64]  # indices of the rows that have a caption only


@dataclass(frozen=True)
class Rows:
    """The rows of one split, read on access: rows[i] is a dict, its images encoded bytes.

    Cheap to pickle; the columns that sampling needs are read once and kept. Of files in a store the row groups are
    fetched that hold the rows, or with a cache whole files when they are first needed.
    """

    files: tuple[AnyPath, ...]
    starts: tuple[int, ...]  # index of each row group's first row, and last the number of all rows
    groups: tuple[tuple[int, int, str], ...]  # of each row group: index of its file, its index there, the file's state
    excluded: frozenset[int] = frozenset()  # indices of rows with a subject that are views of it, and nothing else
    cache: Path | None = None  # folder of local copies of files in a store

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
        file, number, state = self.groups[group]
        path = self.files[file]
        if self.cache is not None and not isinstance(path, Path):
            path = local_copy(path, state, self.cache)
        table = _read_group(path, number, state, columns)
        row = table.slice(index - self.starts[group], 1).to_pylist()[0]
        return {**row, **{name: row[name] and row[name]["bytes"] for name in IMAGE_COLUMNS if name in row}}

    def column(self, name: str) -> list[Any]:
        """One column of all rows; for columns that fit in memory."""
        states = {file: state for file, _, state in self.groups}
        columns = of_each(self.files, lambda number, path: _column(path, states.get(number, ""), name))
        return [value for column in columns for value in column]

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


def of_each(files: Sequence[AnyPath], call: Callable[[int, AnyPath], R]) -> Iterable[R]:
    """The results of a call for the number and path of each file, in order.

    Of files in a store several at once, where most of the time is waiting. Each thread would hold memory of its own.
    """
    if not any(map(is_remote, files)):
        return map(call, range(len(files)), files)
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(call, range(len(files)), files))


@lru_cache(maxsize=CACHED)
def _read_group(path: AnyPath, number: int, state: str, columns: tuple[str, ...]) -> pa.Table:
    with reading(path):
        if not isinstance(path, Path):
            return read_groups(path, _metadata(path, state), [number], columns)
        with pq.ParquetFile(path) as file:
            reader: Any = file  # partly untyped
            return reader.read_row_group(number, columns=list(columns))


@lru_cache(maxsize=FILES)
def _metadata(path: AnyPath, state: str) -> Any:  # noqa: ARG001  a changed file has others
    return metadata_of(read_footer(path))


@lru_cache(maxsize=FILES)
def _small_columns(path: AnyPath, state: str) -> pa.Table:
    """All columns of a file in a store but the images: each request takes longer than what it brings."""
    metadata = _metadata(path, state)
    with reading(path):
        return read_groups(path, metadata, range(metadata.num_row_groups), SMALL_COLUMNS)


def _column(path: AnyPath, state: str, name: str) -> list[Any]:
    if isinstance(path, Path) or name in IMAGE_COLUMNS:
        return read_column(path, name)
    return _small_columns(path, state).column(name).to_pylist()


def load_rows(folder: AnyPath, split: str) -> Rows:
    """Open one split of a folder that `taming materialize` made; a split without rows is empty.

    Raises:
        TamingError: the folder does not exist, holds no rows, or rows of another version.
    """
    if not (present := row_files(folder)):
        if is_file(dropped_table(folder)):
            raise TamingError(f"{folder} holds no rows: all were dropped. `taming inspect {folder}` shows why.")
        raise TamingError(f"{folder} holds no rows. Run `taming materialize` first, or name another folder.")
    files = [file for file in present if file.path.name.startswith(f"{split}-")]
    starts, groups = [0], list[tuple[int, int, str]]()
    counted = of_each([file.path for file in files], lambda number, path: _group_counts(path, files[number].state))
    for number, (file, counts) in enumerate(zip(files, counted, strict=True)):
        for group, count in enumerate(counts):
            starts.append(starts[-1] + count)
            groups.append((number, group, file.state))
    return Rows(tuple(file.path for file in files), tuple(starts), tuple(groups), cache=cache_dir())


def _group_counts(path: AnyPath, state: str) -> list[int]:
    """The rows of each row group; only of a store the footer, a kilobyte per column and row group, is kept."""
    metadata = _metadata(path, state) if is_remote(path) else metadata_of(read_footer(path))
    schema.check(metadata.schema.to_arrow_schema(), schema.ROWS, path)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def dropped_table(folder: AnyPath) -> AnyPath:
    """The table of dropped rows, beside the folder of kept ones, so that whatever reads the folder reads no others.

    >>> dropped_table(Path("data/rows")).as_posix()
    'data/rows-dropped.parquet'
    """
    return folder.with_name(f"{folder.name}-dropped.parquet")


def require_own_rows(folder: AnyPath) -> None:
    """Raises TamingError if a table in a folder, or the `dropped_table` beside it, is something else than rows.

    Other data sets have files of the same names, such as train-00000-of-00001.parquet.
    """
    for path in (*(file.path for file in row_files(folder)), dropped_table(folder)):
        if is_file(path) and schema.name_of(path) != "rows":
            raise TamingError(f"{path}, which would be replaced, is something else than rows, or is damaged. Name "
                              "another folder with --out, or remove it.")  # fmt: skip


def concatenate(first: Rows, second: Rows) -> Rows:
    """The rows of both, those of `second` numbered after those of `first`."""
    starts = (*first.starts, *(len(first) + start for start in second.starts[1:]))
    groups = (*first.groups, *((len(first.files) + file, group, state) for file, group, state in second.groups))
    excluded = first.excluded | {len(first) + n for n in second.excluded}
    return Rows((*first.files, *second.files), starts, groups, excluded, first.cache)
