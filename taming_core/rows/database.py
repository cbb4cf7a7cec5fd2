"""SQLite files that are written whole or not at all, and then read by any number of processes."""

import atexit
import errno
import os
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory

from taming_core.errors import TamingError
from taming_core.files import replacing
from taming_core.storage.paths import AnyPath

CACHE = 16384  # KiB of pages in memory while a file is written; each sorting takes as much, and goes to disk beyond
OS_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_thread = threading.local()


@contextmanager
def naming_errors(path: Path) -> Generator[None]:
    """Turns what SQLite raises in the block for a full disk and the like into errors that name the file.

    Raises:
        OSError: of the operating system.
        TamingError: the file is damaged.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the bits of the extended code
        if code in DAMAGED:
            raise TamingError(f"{path} is damaged. Remove its folder, and run the same command again.") from error
        if code not in OS_ERRORS:
            raise
        raise OSError(OS_ERRORS[code], os.strerror(OS_ERRORS[code]), str(path)) from error


@contextmanager
def writing(path: Path) -> Generator[sqlite3.Connection]:
    """An empty database that becomes the file `path` when the block ends; after an error there is no file."""
    with replacing(path) as part, naming_errors(path), _sorting_in(part.parent):
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(part)) as db:
            # No journal: a crash leaves a file without its name.
            db.executescript(f"pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -{CACHE}")
            yield db
            db.commit()


@contextmanager
def _sorting_in(folder: Path) -> Generator[None]:
    """Have SQLite sort in files of a folder meanwhile: /tmp may be in memory, or small."""
    quoted = str(folder).replace("'", "''")
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"pragma temp_store_directory = '{quoted}'")  # of all connections of the process
        try:
            yield
        finally:
            db.execute("pragma temp_store_directory = ''")


def reading(path: AnyPath) -> sqlite3.Connection:
    """A finished file of `writing`, opened once by each thread; that of a store is copied to this machine."""
    file = path if isinstance(path, Path) else _copied(path)
    key = file.absolute(), file.stat().st_mtime_ns  # another file of this name is opened anew
    if getattr(_thread, "key", None) != key:
        # Immutable: no locks, which network file systems lack.
        with naming_errors(file):
            _thread.db = sqlite3.connect(f"{key[0].as_uri()}?mode=ro&immutable=1", uri=True)
            _thread.db.execute("select * from sqlite_master").fetchall()  # the file is opened with the first query
        _thread.key = key
    return _thread.db


@cache
def _copied(path: AnyPath) -> Path:
    place = TemporaryDirectory(prefix="taming-")
    atexit.register(place.cleanup)
    file = Path(place.name, path.name)
    with path.open("rb") as source, file.open("wb") as target:
        copyfileobj(source, target)
    return file
