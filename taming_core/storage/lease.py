"""A lock as an object in a store, which its holder renews while it lives and which is free some time after its death.

Two machines' clocks are never compared: who finds a lock watches whether it is renewed, by its own monotonic clock.
"""

import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage.filesystem import explaining, filesystem

RENEWAL = 15.0  # seconds between two renewals
LEASE = 60.0  # seconds without a renewal after which the holder counts as dead
LOOK = 0.5  # seconds between two looks at another's lock

Holder = Mapping[str, str | int]


@contextmanager
def leased(lock: UPath, holder: Holder, describe: Callable[[Any], str]) -> Generator[None]:
    """Hold the lock while the block runs.

    Args:
        lock: the object.
        holder: what names this process, as JSON.
        describe: a holder in words.

    Raises:
        TamingError: another process holds it, or took it because this one could not renew it for `LEASE` seconds.
    """
    token, ended, lost = uuid.uuid4().hex, threading.Event(), threading.Event()
    with explaining(lock):
        _take(lock, _content(holder, token, 0), describe)
    renewing = threading.Thread(target=_renew, args=(lock, holder, token, ended, lost), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with suppress(Exception):  # then the lease ends by itself
            if _token(read(lock)) == token:
                filesystem(lock).rm_file(lock.path)
    if lost.is_set():
        raise TamingError(f"{lock} was taken by another process while this one could not renew it. Run the same "
                          "command again when that one has ended.")  # fmt: skip


def read(lock: UPath) -> dict[str, Any] | None:
    """The content of a lock; None if nobody holds it."""
    try:
        data = filesystem(lock).cat_file(lock.path)
    except FileNotFoundError:
        return None
    with suppress(ValueError):
        found = json.loads(data)
        if isinstance(found, dict):
            return cast(dict[str, Any], found)
    return {}


def _take(lock: UPath, content: bytes, describe: Callable[[Any], str]) -> None:
    seen, since, fs = None, time.monotonic(), filesystem(lock)
    while True:
        if (found := read(lock)) is None:
            with suppress(FileExistsError):  # by another in this moment
                fs.pipe_file(lock.path, content, mode="create")
            if _token(read(lock)) == _token(json.loads(content)):  # a store may ignore the mode
                return
            continue
        if seen is not None and found != seen:
            raise TamingError(f"{lock.parent.parent / lock.stem} is being written by {describe(found)}. Wait until "
                              "that has ended, or stop it; then run the same command again.")  # fmt: skip
        if seen is None and not is_crashed(found):
            print(f"taming: {lock.stem} was being written by {describe(found)}; looking for up to {LEASE:.0f} seconds "
                  "whether it still is", file=sys.stderr)  # fmt: skip
        if is_crashed(found) or time.monotonic() - since > LEASE:
            with suppress(FileNotFoundError):
                fs.rm_file(lock.path)
            seen, since = None, time.monotonic()
            continue
        seen = found
        time.sleep(LOOK)


def _renew(lock: UPath, holder: Holder, token: str, ended: threading.Event, lost: threading.Event) -> None:
    renewals = 0
    while not ended.wait(RENEWAL):
        with suppress(Exception):  # a store that cannot be reached now may be at the next renewal
            if _token(read(lock)) != token:
                return lost.set()
            renewals += 1
            filesystem(lock).pipe_file(lock.path, _content(holder, token, renewals))
    return None


def _content(holder: Holder, token: str, renewals: int) -> bytes:
    return json.dumps({**holder, "machine": this_machine(), "token": token, "renewals": renewals}).encode()


def _token(content: Mapping[str, Any] | None) -> str | None:
    return None if content is None else content.get("token")


def is_crashed(holder: Mapping[str, Any]) -> bool:
    """Whether a holder ran on this machine and has ended; False where that cannot be known."""
    if holder.get("machine") != this_machine() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def this_machine() -> str:
    """What no other machine or container has, whose processes have numbers of their own, and no earlier start of it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"{platform.node()} {uuid.getnode():x}"
