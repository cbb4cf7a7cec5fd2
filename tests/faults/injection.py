"""Faults at exact points of a command: where Python is about to change what the project has on disk.

A point is an audit event of Python (docs.python.org/3/library/audit_events.html), the file, and which time it is. Two
undisturbed runs of a command pass the same points, so that each of them can be tried once. Between two points the disk
changes only by what is written to open files, which `largest_file` interrupts.
"""

import os
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faults.processes import session_of

# Events by the index of the argument that is the path; of a renaming, the new one.
PATHS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0, "os.link": 1,
         "os.symlink": 1}  # fmt: skip
IF_THERE, IF_NEW = ("os.remove", "os.rmdir"), ("os.mkdir",)  # other calls of these change nothing
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OWN = (  # parts of names that differ from run to run
    (re.compile(r"taming-\d+\.part"), "taming-PID.part"),
    (re.compile(r"\d{20}-[0-9a-f]{12}"), "TIME-ID"),
    (re.compile(r"events\.out\.tfevents\..*"), "events.out.tfevents"),
)
HOUR = 3600.0


class Point(NamedTuple):
    """What a process is about to do with a file for the n-th time."""

    event: str
    path: str  # from the folder of the project
    nth: int


def without_own_names(path: str) -> str:
    """The path without the parts of names that no two runs have in common."""
    for pattern, name in OWN:
        path = pattern.sub(name, path)
    return path


def changed_path(event: str, args: Sequence[Any]) -> str | None:
    """The absolute path of the file or folder that an audit event is about to change, or None."""
    if event not in PATHS or not isinstance(given := args[PATHS[event]], str | bytes | os.PathLike):
        return None
    if event == "open" and not args[2] & WRITING:
        return None
    path, folder = os.fsdecode(given), args[-1]
    if event in IF_THERE and folder >= 0:  # of shutil.rmtree
        path = str(Path(f"/proc/self/fd/{folder}").readlink() / path)
    if (event in IF_THERE and not os.path.lexists(path)) or (event in IF_NEW and os.path.lexists(path)):
        return None
    return os.path.abspath(path)  # noqa: PTH100


def watch(root: Path, reached: Callable[[Point, Sequence[Any]], object]) -> None:
    """Call a function at every point below `root`, from now on, in this process."""
    seen, prefix, busy = Counter[tuple[str, str]](), f"{root}{os.sep}", set[int]()

    def hook(event: str, args: Sequence[Any]) -> None:
        path = None if busy else changed_path(event, args)
        if path is None or not path.startswith(prefix):
            return
        what = event, without_own_names(path.removeprefix(prefix))
        seen[what] += 1
        busy.add(1)  # what `reached` does is no point
        try:
            reached(Point(*what, seen[what]), args)
        finally:
            busy.clear()

    sys.addaudithook(hook)


def record(path: Path, point: Point, args: Sequence[Any]) -> None:
    """Append a point to a file, with the size of the file that is about to get its name."""
    renamed = Path(os.fsdecode(args[0])) if point.event == "os.rename" else None
    size = renamed.stat().st_size if renamed and renamed.is_file() else 0
    with path.open("a", encoding="utf-8") as file:
        print(*point, size, sep="\t", file=file)


def read_points(path: Path) -> dict[Point, int]:
    """What `record` wrote: the points in their order, each with the size of the file that got its name."""
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {Point(event, name, int(nth)): int(size) for event, name, nth, size in lines}


def limit_files(size: int) -> None:
    """From now on the kernel kills this process in the middle of the write that makes a file larger than that."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def kill_others() -> None:
    """Kill the other processes of this one's session."""
    for pid in session_of(os.getsid(0)):
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)


ACTIONS: Mapping[str, Callable[..., object]] = {
    "signal": lambda number: os.kill(os.getpid(), number),
    "limit_files": limit_files,
    "kill_others": kill_others,
    "remove": os.remove,
    "copy": shutil.copyfile,
}


def inject(request: Mapping[str, Any]) -> None:
    """Install the fault of a request in this process.

    Keys: `record`, a file for the points; `at`, a point, and `do`, the name of an action and its arguments; `clock`,
    hours that the clock is wrong by, the next ones whenever a file gets its name.
    """
    root = Path(request["cwd"])
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "record" in request:
        watch(root, lambda *passed: record(Path(request["record"]), *passed))
    if "at" in request:
        at, (name, *args) = Point(*request["at"]), request["do"]
        watch(root, lambda point, _: ACTIONS[name](*args) if point == at else None)
    if "clock" in request:
        jump_clock(root, request["clock"])


def jump_clock(root: Path, hours: Sequence[float]) -> None:
    """Let the clock of this process be wrong by the next of `hours` whenever a file below `root` gets its name."""
    real, real_ns, jumps = time.time, time.time_ns, Counter[str]()

    def offset() -> float:
        return hours[jumps["os.rename"] % len(hours)] * HOUR

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)
    watch(root, lambda point, _: jumps.update([point.event]))
