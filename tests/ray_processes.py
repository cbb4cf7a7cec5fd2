"""The processes of a cluster of Ray, which go on for a while after the command was killed that started it."""

import time
from pathlib import Path

import psutil


def wait_for_processes_of(session: Path, seconds: float = 60) -> None:
    """Wait until no process of a cluster is left."""
    until = time.monotonic() + seconds
    while any(str(session) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < until, f"processes of {session} live on"
        time.sleep(0.2)
