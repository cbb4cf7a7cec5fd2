"""The project, or some of its files, in a folder of their own, where a chain of `pipelines/` may run in smoke size.

What is copied is what git tracks, as it stands in the working tree: never an output, a lock, a cache or an environment
that somebody's run has left behind.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN_STAGES = Path(__file__).with_name("run_stages.py")


def run(command: Sequence[str], cwd: Path) -> str:
    """What a command prints; it has to end well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # dvc and taming of this environment
    more = {"PATH": path, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1"}
    program = shutil.which(command[0], path=path) or command[0]
    done = subprocess.run([program, *command[1:]], cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@cache
def tracked() -> tuple[Path, ...]:
    """The files that git tracks and that are there, from the top of the project."""
    listed = run(["git", "ls-files", "-z"], ROOT).split("\0")
    return tuple(Path(name) for name in listed if name and (ROOT / name).is_file())


def copy_tracked(target: Path, below: str = "", left_behind: tuple[str, ...] = ()) -> Path:
    """`target` with the tracked files of the folder `below`, but for those that begin as `left_behind`."""
    for name in tracked():
        if name.is_relative_to(below) and not name.as_posix().startswith(left_behind):
            copied = target / name.relative_to(below)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copied)
    return target


def smoke_run(folder: Path, left_behind: tuple[str, ...], chain: str, target: str, by_dvc: str) -> Path:
    """`folder` with the project, but what begins as `left_behind`, after all that a stage of a chain needs was run.

    Args:
        folder: of the copy.
        left_behind: beginnings of names.
        chain: a dvc.yaml; the overrides are those of smoke.args beside it.
        target: the chain's last stage.
        by_dvc: up to this stage `dvc exp run` runs them. The others run by the same commands, but in one process, and
            DVC records what they made: starting Python anew for each takes longer than the stages do.
    """
    copy_tracked(folder, left_behind=left_behind)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    run(["git", "init", "-q"], folder)
    run(["git", "config", "core.compression", "0"], folder)  # weights do not get smaller
    run(["git", "add", "-A"], folder)
    run(["git", *who, "commit", "-qm", "The project"], folder)
    overrides = shlex.split((folder / chain).with_name("smoke.args").read_text(), comments=True)
    run(["dvc", "exp", "run", f"{chain}:{by_dvc}", *overrides], folder)
    if by_dvc != target:
        run(["python", str(RUN_STAGES), chain, target], folder)
    return folder
