"""The files of a folder of rows, on disk or in a store."""

from dataclasses import dataclass
from pathlib import Path

from taming_core.fingerprints import digest
from taming_core.storage.commit import committed, plain_name
from taming_core.storage.filesystem import object_state
from taming_core.storage.paths import AnyPath
from taming_core.tables.parquet import read_footer


@dataclass(frozen=True)
class RowFile:
    """A Parquet file of rows."""

    path: AnyPath
    name: str  # its own, or in a store that without the version in it
    size: int  # bytes
    state: str  # which differs when the file has been written again


def row_files(folder: AnyPath) -> list[RowFile]:
    """The Parquet files of a folder of rows in order of their names; in a store those of its newest commit."""
    if isinstance(folder, Path):
        found = ((path, path.stat()) for path in folder.glob("*.parquet"))
        files = [RowFile(path, path.name, stat.st_size, str(stat.st_mtime_ns)) for path, stat in found]
    else:
        files = [
            RowFile(folder / name, plain_name(name), info["size"], object_state(info))
            for name, info in committed(folder).items()
            if name.endswith(".parquet") and "/" not in name
        ]
    return sorted(files, key=lambda file: file.path.name)


def rows_state(folder: AnyPath) -> str:
    """16 hex digits that identify rows; only the files' footers are read, which hold counts, sizes and extremes.

    Rows have the same wherever they lie.
    """
    return digest(f"{f.name}\0{f.size}\0".encode() + read_footer(f.path)[:-8] for f in row_files(folder))
