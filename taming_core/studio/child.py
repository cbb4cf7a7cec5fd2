"""The command that the studio runs for a project: a process of its own, which goes on when the page or the studio ends.

One at a time. Its log and what names it are files, so that a studio that is started later shows and stops it, too.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from taming_core.errors import TamingError
from taming_core.files import read_json, write_json
from taming_core.params.load import read_yaml
from taming_core.studio.places import CACHE

RECORD, LOG = CACHE / "command.json", CACHE / "command.log"
SHOWN = 20_000  # bytes of the log, its end


def commands(project: Path) -> list[str]:
    """What can be started in a project: all of its stages or those up to one, if DVC is here, and training alone."""
    stages: list[str] = []
    if (project / "dvc.yaml").is_file() and find_spec("dvc") is not None:
        stages = list(read_yaml(project / "dvc.yaml", project / "dvc.yaml").get("stages", {}))
    return [*(["dvc repro"] if stages else []), *(f"dvc repro {stage}" for stage in stages), "taming train"]


def start(command: str, project: Path) -> None:
    """Start a command in the project's folder.

    Raises:
        TamingError: another one runs, or it is none of `commands`.
    """
    if command not in commands(project):
        raise TamingError(f"`{command}` is no command of this project. Choose one of the list.")
    if (running := running_command(project)) is not None:
        raise TamingError(f"`{running}` is running. Stop it, or wait until it has ended.")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    (project / CACHE).mkdir(parents=True, exist_ok=True)
    # The shell notes the exit status, also if the studio has ended by then; its trap keeps it when the rest is stopped.
    noted = 'trap : TERM; "$@"; status=$?; echo; echo "$*: exit status $status"'
    with (project / LOG).open("w", encoding="utf-8") as log:
        print(f"$ {command}", file=log, flush=True)
        process = subprocess.Popen(
            ["sh", "-c", noted, "sh", *command.split()], cwd=project, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    began = psutil.Process(process.pid).create_time()
    write_json(project / RECORD, {"command": command, "pid": process.pid, "began": began})


def running_command(project: Path) -> str | None:
    """The command that was started and has not ended."""
    named = _record(project)
    return None if named is None or not _is_alive(named) else str(named["command"])


def _record(project: Path) -> Mapping[str, Any] | None:
    with suppress(OSError, ValueError, TamingError):
        return read_json(project / RECORD)
    return None


def _is_alive(named: Mapping[str, Any]) -> bool:
    """Whether a recorded process is there; another may have got its number."""
    with suppress(psutil.Error):
        process = psutil.Process(named["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            process.wait(0)
            return False
        return process.create_time() == named["began"]
    return False


def stop(project: Path) -> None:
    """Ask the command to end: a training saves its state after the current step, as on SIGTERM from anywhere.

    Raises:
        TamingError: none is running.
    """
    named = _record(project)
    if named is None or not _is_alive(named):
        raise TamingError("Nothing is running. Start a command first.")
    os.killpg(named["pid"], signal.SIGTERM)


def log(project: Path) -> str:
    """The end of what the last command printed; of a line that was written over, its last state."""
    path = project / LOG
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SHOWN))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
