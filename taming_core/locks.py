"""Locks of outputs and of resumable state: a second command that would write the same stops and names the first."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from upath import UPath

from taming_core.errors import TamingError
from taming_core.files import naming, remove_parts
from taming_core.storage.lease import leased
from taming_core.storage.paths import AnyPath

BESIDE = ".taming"  # folder of locks and resumable state beside the outputs in a store


@contextmanager
def exclusive(*paths: AnyPath, nested: bool = True, wait: float = 0) -> Generator[None]:
    """Hold the locks of files or folders while the block writes them.

    The operating system releases a lock when its process ends, however that happens. What a crashed process had begun
    to write is removed. The lock of an output in a store is an object that is renewed; see `storage/lease.py`.

    Args:
        paths: files or folders; of a link, what it leads to.
        nested: whether also what is in folders of these folders is the command's own.
        wait: seconds for another process to release the lock of a file or folder of this machine.

    Raises:
        TamingError: another process holds one of the locks; the message names it.
    """
    with ExitStack() as held:
        for path in paths:
            if isinstance(path, Path):
                held.enter_context(_locked(path, wait))
                remove_parts(Path(os.path.realpath(path)), nested)
            else:
                held.enter_context(leased(lock_object(path), this_process(), in_words))
        yield


@contextmanager
def _locked(path: Path, wait: float) -> Generator[None]:
    place = Path(os.path.realpath(path))  # one lock for all names of a place
    place.parent.mkdir(parents=True, exist_ok=True)
    # A folder of pictures may be the only one that can be written, such as a mounted one.
    beside = place.parent if os.access(place.parent, os.W_OK) or not place.is_dir() else place
    lock, holder = beside / f".{place.name}.lock", beside / f".{place.name}.holder.json"
    try:
        # The lock's own file may be unreadable while it is held, so that a second file names the holder.
        with FileLock(lock, timeout=wait):
            try:
                with naming(holder):
                    holder.write_text(json.dumps(this_process()), encoding="utf-8")
                yield
            finally:
                for file in (holder, lock):  # in this order, while the lock is held
                    with suppress(OSError):
                        file.unlink()
    except Timeout as error:
        if error.lock_file != str(lock):  # of a block inside
            raise
        raise TamingError(f"{path} is being written by {describe(holder)}. Wait until that has ended, or stop it; then "
                          "run the same command again.") from error  # fmt: skip


def lock_object(path: UPath) -> UPath:
    """Where the lock of an output or of resumable state in a store lies."""
    folder = path.parent if path.parent.name == BESIDE else path.parent / BESIDE
    return folder / f"{path.name}.lock"


def this_process() -> dict[str, str | int]:
    """What names this process to a user."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"command": command, "pid": os.getpid(), "host": platform.node(), "since": since}


def describe(holder: Path) -> str:
    """The process that holds a lock, in words."""
    with suppress(OSError, ValueError):
        return in_words(json.loads(holder.read_text(encoding="utf-8")))
    return in_words(None)


def in_words(named: Any) -> str:
    """What `this_process` returned in another process, in words.

    >>> in_words({"command": "taming train", "pid": 7, "host": "node1", "since": "2026-11-30 12:00:00+00:00"})
    '`taming train` (process 7 on node1, since 2026-11-30 12:00:00+00:00)'
    """
    with suppress(KeyError, TypeError):
        return f"`{named['command']}` (process {named['pid']} on {named['host']}, since {named['since']})"
    return "another process, which has only just begun or is about to end"
