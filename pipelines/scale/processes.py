"""Commands as processes: the memory of all of them together, the shards that they finish, and SIGKILL in the middle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import psutil

from taming_core.errors import TamingError

PROGRAM = "from stages.cli import main; main()"
EVERY = 0.5  # seconds between two looks
SHARDS = "[0-9]*.parquet"  # finished ones below runs/; unfinished ones have another ending
MIB = 1 << 20


@dataclass(frozen=True)
class Watched:
    """One process of a command and those that it started, from start to end."""

    seconds: float
    cpu_seconds: float  # of all processes that ended before it; without a kill of all
    peak_mib: float  # proportional set size of all processes together, so that shared pages count once
    peak_main_mib: float  # of the process of the command alone
    peak_processes: int
    shards: tuple[float, ...]  # seconds from the start until each shard was seen; 0 for those that were there
    killed: bool
    left: int  # processes that were there 10 seconds after a kill

    @property
    def interval(self) -> float:
        """The mean of the seconds between two shards; 0 where there are fewer than two."""
        made = [seconds for seconds in self.shards if seconds]
        return (made[-1] - made[0]) / (len(made) - 1) if len(made) > 1 else 0.0


def run(words: Sequence[str], folder: Path) -> None:
    """Run a command in a folder.

    Raises:
        TamingError: it fails; the message has its last line.
    """
    watch(words, folder)


def watch(words: Sequence[str], folder: Path, kill_at: int | None = None) -> Watched:
    """Run a command in a folder, and look at its processes and shards twice a second.

    Args:
        words: of the command, without the name of the program.
        folder: its working directory, whose runs/ holds its shards.
        kill_at: SIGKILL goes to the process of the command when so many shards are finished; None for no kill.

    Raises:
        TamingError: it fails; the message has its last line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards, peak, main_peak, most, killed = [0.0] * finished(folder), 0.0, 0.0, 0, False
    start = time.perf_counter()
    process = begin(words, folder)
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        now, used = time.perf_counter() - start, memory(process.pid)
        shards += [now] * (finished(folder) - len(shards))
        peak, main_peak = max(peak, sum(used.values())), max(main_peak, used.get(process.pid, 0.0))
        most = max(most, len(used))
        if kill_at is not None and len(shards) >= kill_at and not killed:
            process.kill()
            killed = True
        time.sleep(0 if killed else EVERY)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    killed = killed and process.returncode == -signal.SIGKILL  # it may have ended before
    if process.returncode and not killed:
        raise TamingError(f"taming {words[0]} failed: {last_line(folder)} Run it by itself to see why.")
    left = orphans(process.pid) if killed else 0
    cpu = usage.ru_utime + usage.ru_stime
    return Watched(seconds, cpu, peak, main_peak, most, tuple(shards), killed, left)


def begin(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that all its processes are known, also after its end."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def last_line(folder: Path) -> str:
    """The last line that a command has printed."""
    return (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def finished(folder: Path) -> int:
    """The number of finished shards below runs/."""
    # os.walk, unlike Path.rglob, passes over folders that are removed meanwhile.
    return sum(fnmatch(name, SHARDS) for _, _, names in os.walk(folder / "runs") for name in names)


def of_session(session: int) -> Iterator[int]:
    """The processes of a session."""
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == session:
                yield pid


def memory(session: int) -> dict[int, float]:
    """The proportional set size of each process of a session, in MiB."""
    found = {pid: proportional_set_size(pid) for pid in of_session(session)}
    return {pid: size for pid, size in found.items() if size}


def proportional_set_size(pid: int) -> float:
    """Memory of a process in MiB, pages that n processes share counted as 1/n; 0 for one that has ended (proc(5))."""
    with suppress(OSError, psutil.Error):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) * 1024 / MIB for line in lines if line.startswith("Pss:")), 0.0)
    return 0.0


def orphans(session: int, patience: float = 10.0) -> int:
    """How many processes of a killed command are left after some seconds; those are ended then."""
    end = time.perf_counter() + patience
    while (left := list(of_session(session))) and time.perf_counter() < end:
        time.sleep(0.1)
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(left)
