"""A studio of a project, started as a command."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from stages.cli import main; main()", "studio"]
SECONDS = 120  # to start, on a busy machine


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def studio(project: Path, log: Path) -> Iterator[str]:
    """The address of the project's studio; what it prints goes to `log`."""
    with started(project, log) as (address, _):
        yield address


@contextmanager
def started(project: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of the project's studio, and its process."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    with log.open("w") as lines:
        process = subprocess.Popen(
            [*COMMAND, str(project), "--port", str(port), "--no-browser"], stdout=lines, stderr=lines, env=environment,
        )  # fmt: skip
        try:
            wait_for(process, log)
            yield address, process
        finally:
            process.terminate()
            process.wait(20)


def wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the address is printed."""
    for _ in range(SECONDS * 10):
        assert process.poll() is None, log.read_text()
        if log.read_text().endswith("\n"):
            return
        time.sleep(0.1)
    raise AssertionError(f"no page after {SECONDS} s: {log.read_text()}")


def printed(log: Path) -> list[str]:
    """The lines that the studio printed, with its port left out."""
    return re.sub(r":\d+", ":PORT", log.read_text()).splitlines()
