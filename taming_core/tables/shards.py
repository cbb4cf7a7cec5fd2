"""Resumable work: a finished shard is final, and a rerun continues at the first unfinished one."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from taming_core.errors import TamingError
from taming_core.files import remove
from taming_core.locks import BESIDE
from taming_core.storage.filesystem import list_folder
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import read_table

T = TypeVar("T")

SHARD = re.compile(r"\d+\.parquet")
RUNS = Path("runs")  # resumable state; not an output, safe to delete


def require_runs() -> None:
    """Raises TamingError if resumable state cannot be written below the working directory."""
    place = RUNS.absolute() if os.path.lexists(RUNS) else Path.cwd()
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise TamingError(f"{place} allows no new files, and resumable state goes to {RUNS} there. Run the command in "
                          "a folder that you may write.")  # fmt: skip


def state_folder(out: AnyPath, name: str) -> AnyPath:
    """The folder of a stage's resumable state: of an output in a store beside it, so that any machine can go on.

    >>> state_folder(Path("data/objects.parquet"), "detect-1a2b").as_posix()
    'runs/detect-1a2b'
    """
    return RUNS / name if isinstance(out, Path) else out.parent / BESIDE / name


def shard_path(folder: AnyPath, number: int) -> AnyPath:
    """Where a shard is, once it is finished."""
    return folder / f"{number:06d}.parquet"


def shard_number(path: AnyPath) -> int:
    """The number of a shard.

    >>> shard_number(Path("state/000012.parquet"))
    12
    """
    return int(path.stem)


def shard_paths(folder: AnyPath) -> list[AnyPath]:
    """The finished shards in order."""
    if isinstance(folder, Path):
        return sorted(folder.glob("[0-9]*.parquet"), key=shard_number)
    return sorted((folder / name for name in list_folder(folder) if SHARD.fullmatch(name)), key=shard_number)


def join(folder: AnyPath, expected: pa.Schema, out: AnyPath, names: Iterable[Sequence[str]], count: int) -> None:
    """Write all shards into one table, one after the other, and remove their folder.

    Args:
        folder: of the shards.
        expected: the schema of the table.
        out: the table to write.
        names: for each shard the `file_name` of every source, each of which must be in it.
        count: how many shards there are.

    Raises:
        TamingError: a shard or a photo is missing; then the shards are kept, and `out` is unchanged.
    """
    require_shards(folder, count)

    def tables() -> Iterator[pa.Table]:
        for number, photos in enumerate(names):
            t = read_table(shard_path(folder, number))
            require_photos(set(map(str, t.column("file_name").to_pylist())), photos, shard_path(folder, number))
            yield t

    schema.write(tables(), expected, out)
    remove(folder)


def require_shards(folder: AnyPath, count: int) -> None:
    """Raises TamingError if the folder has not the shards 0 to `count` - 1, or has others."""
    if (paths := shard_paths(folder)) != [shard_path(folder, number) for number in range(count)]:
        raise TamingError(f"{folder} should hold {count} shards and holds {len(paths)}: another program changed it. "
                          "Remove that folder, and run the same command again.")  # fmt: skip


def require_photos(found: set[str], names: Sequence[str], shard: AnyPath) -> None:
    """Check that a shard has rows of all its photos, and of no others.

    Raises:
        TamingError: it does not; the message names one.
    """
    if wrong := sorted(found ^ set(names)):
        raise TamingError(f"Of {len(set(names))} photos {len(found & set(names))} are in {shard}; {wrong[0]} differs. "
                          "Remove that file, and run the same command again.")  # fmt: skip
