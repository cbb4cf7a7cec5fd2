"""Processes that end with the one that started them, and leave Ctrl-C to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, ParamSpec, TypeVar

from taming_core.errors import TamingError

P = ParamSpec("P")
T = TypeVar("T")

# What most of them import; a process is then forked in milliseconds, and shares the memory of it.
PRELOADED = ["__main__", "pyarrow.parquet", "taming_core.photos.folder"]


def context() -> SpawnContext | ForkServerContext:
    """How processes are started: forked from a small server that loads no models, and spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(PRELOADED)
    return multiprocessing.get_context("forkserver")


def settle(environment: Mapping[str, str]) -> None:
    """Called first in a process: it gets the environment of the one that started it, and ends when that one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C, which all processes of a terminal get
    os.environ.update(environment)  # the server has that of its start
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process of its own, whose memory goes with it; all that is passed is pickled.

    Raises:
        TamingError: the process was killed.
    """
    processes = context()
    receiver, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_send, args=(sender, dict(os.environ), function, args, kwargs), daemon=True)
    child.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        raise TamingError("The process that lists the input was killed, which happens where memory runs out. End other "
                          "programs, and run the same command again.") from None  # fmt: skip
    finally:
        child.kill()
        child.join()
    if error is not None:
        raise error
    return result


def _send(
    sender: Connection, environment: Mapping[str, str], function: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    settle(environment)
    try:
        sender.send((function(*args, **kwargs), None))
    except Exception as error:
        sender.send((None, error))
