"""The processes of this machine, as /proc shows them."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Agents of Ray's own look once a minute whether their node is there, and hold none of its resources.
LATE = ("ray::DashboardA", "ray::RuntimeEnv")


def state_of(pid: int) -> tuple[str, int]:
    """The letter of a process's state, as of ps, and its session; an ended one is a zombie of session 0."""
    with suppress(OSError):
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:4]
        return state, int(session)
    return "Z", 0


def session_of(pid: int) -> list[int]:
    """The processes that a command has started and that are still there, itself among them; no zombies and `LATE`."""
    states = {int(folder.name): state_of(int(folder.name)) for folder in Path("/proc").glob("[0-9]*")}
    found = [number for number, (state, session) in states.items() if session == pid and state != "Z"]
    return [number for number in found if name_of(number) not in LATE]


def name_of(pid: int) -> str:
    """The name of a process, of which Linux keeps 15 letters; none of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def wait_until(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Whether a condition became true in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(found)
