"""Commands of `taming` in processes of their own, started by the fork server."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 240  # for a command


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int  # negative: the signal that ended it
    out: str
    err: str


@dataclass(frozen=True)
class ForkServer:
    """Starts commands with faults (tests/faults/server.py)."""

    process: subprocess.Popen[str]
    logs: Path  # folder for what the commands print

    def ask(self, **request: Any) -> Any:
        """The answer to a request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, home: Path, argv: list[str], **fault: Any) -> int:
        """Start a command with a fault (`injection.inject`), and return its process id."""
        return self.ask(start={"argv": argv, "cwd": str(home), "logs": str(self.logs), **fault})

    def wait(self, pid: int, seconds: float = SECONDS) -> Ended:
        """How a command has ended; it fails if it has not in time."""
        status = self.ask(wait=pid, seconds=seconds)
        out, err = (self.log(pid, name) for name in ("out", "err"))
        assert status is not None, f"process {pid} has not ended in {seconds} s:\n{out}\n{err}"
        return Ended(status, out, err)

    def log(self, pid: int, name: str) -> str:
        """What a command has printed so far."""
        return (self.logs / f"{pid}.{name}").read_text()

    def run(self, home: Path, argv: list[str], **fault: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.wait(self.start(home, argv, **fault))


@contextmanager
def fork_server(logs: Path) -> Generator[ForkServer]:
    """A fork server that has imported everything."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1",
           "HF_HUB_OFFLINE": "1"}  # fmt: skip
    command = [sys.executable, str(ROOT / "tests/faults/server.py")]
    process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == '"ready"\n'
        yield ForkServer(process, logs)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
