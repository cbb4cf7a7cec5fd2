"""Local copies of a store's files, for what is read again and again.

fsspec's own caches write a copy under its last name at once: after a crash they take a part of a file for the whole.
"""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock
from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage.filesystem import explaining, filesystem
from taming_core.storage.paths import AnyPath

CACHE_DIR = "TAMING_CACHE_DIR"  # the variable of the environment by which processes that are started know it


def cache_dir() -> Path | None:
    """The folder of local copies; None where files are read from their store on access."""
    return Path(named) if (named := os.environ.get(CACHE_DIR)) else None


def use_cache_dir(folder: Path | None, *read: AnyPath) -> None:
    """Have this process and those that it starts keep local copies in a folder; None changes nothing.

    Args:
        folder: as --cache-dir gives it.
        read: what the command reads.

    Raises:
        TamingError: the option would have no effect, or the folder cannot be written.
    """
    if folder is None:
        return
    if all(isinstance(path, Path) for path in read):
        raise TamingError("--cache-dir has no effect on files of this machine. Leave it out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TamingError(f"--cache-dir {folder} cannot be written: {error.strerror}. Name another folder.") from error
    os.environ[CACHE_DIR] = str(folder.absolute())


def local_copy(path: UPath, state: str, folder: Path) -> Path:
    """The local copy of a file in a store, fetched when it is first needed, by one process if several need it.

    Args:
        path: the file.
        state: its `object_state`; a changed file has another copy.
        folder: of the copies.
    """
    name = f"{blake2b(f'{path} {state}'.encode(), digest_size=16).hexdigest()}{path.suffix}"
    copy, part, lock = folder / name, folder / f"{name}.part", folder / f"{name}.lock"
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not copy.exists():
                with explaining(path):
                    filesystem(path).get_file(path.path, str(part))
                part.replace(copy)
        with suppress(OSError):  # whoever waits for it now looks for the copy under another lock
            lock.unlink()
    return copy
