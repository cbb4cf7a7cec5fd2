"""Reading objects of a store: again after a failure that may pass, and telling one object's error from the store's."""

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import sleep
from typing import TypeVar

from upath import UPath

from taming_core.storage.filesystem import explaining, filesystem, is_store_error
from taming_core.storage.paths import AnyPath, is_remote

R = TypeVar("R")
# Seconds before a read is tried again. The clients of stores try by themselves, but not for long: s3fs gives up five
# seconds after the network is gone.
WAITS = (1.0, 4.0, 16.0)
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError)  # errors that do not pass
THREADS = 32  # requests at once; each waits for the network most of its time


def read_object(path: UPath, size: int | None = None) -> bytes:
    """The content of an object, or its first `size` bytes.

    Raises:
        OSError: it cannot be read, although the store answers for the folder that it is in.
        TamingError: the store cannot be reached, or the credentials are not valid there: no object can be read.
    """
    try:
        return _with_retries(path, size)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except Exception as error:
        if not (isinstance(error, LASTING) or is_store_error(error)):
            raise
        _require_store(path)
        number = errno.EACCES if isinstance(error, PermissionError) else errno.EIO
        raise OSError(number, " ".join(str(error).split())[:200] or type(error).__name__, str(path)) from error


def _with_retries(path: UPath, size: int | None) -> bytes:
    for wait in WAITS:
        try:
            return _read(path, size)
        except LASTING:
            raise
        except Exception as error:
            if not is_store_error(error):
                raise
            sleep(wait)
    return _read(path, size)


def _read(path: UPath, size: int | None) -> bytes:
    fs = filesystem(path)
    if size is not None:
        return fs.cat_file(path.path, start=0, end=size)
    # s3fs asks for the size first, in a request of its own, if it may read a file in parts at the same time.
    options = {"max_concurrency": 1} if path.protocol in ("s3", "s3a") else {}
    return fs.cat_file(path.path, **options)


def _require_store(path: UPath) -> None:
    """Raises TamingError if the store does not answer for the folder of an object."""
    with explaining(path.parent), suppress(FileNotFoundError):  # the folder was removed: the store has answered
        filesystem(path).info(path.parent.path)


def map_reads(function: Callable[[AnyPath], R], paths: Sequence[AnyPath]) -> list[R]:
    """What a function that reads a file gives for each path, in order; many objects of a store are read at once."""
    if not any(map(is_remote, paths)):
        return [function(path) for path in paths]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, paths))
