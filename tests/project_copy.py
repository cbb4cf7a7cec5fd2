"""The project in a copy of its own, in which a chain of `pipelines/` runs in smoke size."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(command: Sequence[str], cwd: Path) -> str:
    """What a command prints; it has to end well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # dvc and taming of this environment
    more = {"PATH": path, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    program = shutil.which(command[0], path=path) or command[0]
    done = subprocess.run([program, *command[1:]], cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def smoke_run(folder: Path, left_behind: tuple[str, ...], target: str, overrides: str) -> Path:
    """`folder` with the project, but what begins as `left_behind`, after `dvc exp run` of a target.

    `overrides` is the file of the project that holds the `-S` arguments.
    """
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
    for name in (n for n in listed if not n.startswith(left_behind) and (ROOT / n).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    run(["git", "init", "-q"], folder)
    run(["git", "config", "core.compression", "0"], folder)  # weights do not get smaller
    run(["git", "add", "-A"], folder)
    run(["git", *who, "commit", "-qm", "The project"], folder)
    run(["dvc", "exp", "run", target, *shlex.split((folder / overrides).read_text(), comments=True)], folder)
    return folder
