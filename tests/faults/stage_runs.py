"""The undisturbed run of a stage, and what becomes of it when a fault is injected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.commands import ForkServer
from faults.injection import Point, read_points
from faults.ledger import enter
from faults.processes import session_of, wait_until
from faults.projects import COMMANDS, OUTS, Content, content, copy_project, count_rows, make_older


@dataclass(frozen=True)
class StageRun:
    """A stage of the tiny project, before and after an undisturbed run."""

    stage: str
    server: ForkServer
    project: Path  # as it is before the stage, with an older output
    home: Path  # the copy in which the stage runs
    after: Path  # a copy of it after the undisturbed run
    points: Mapping[Point, int]  # in their order, each with the size of the file that gets its name there
    older: Content  # of the output
    result: Content  # of the whole project
    rows: int  # of the output

    def fresh(self) -> Path:
        """The project before the stage, in its folder."""
        return copy_project(self.project, self.home)


def undisturbed(stage: str, server: ForkServer, project: Path, home: Path) -> StageRun:
    """Run a stage in a copy of a project, and record the points that it passes."""
    make_older(project, stage)
    older, log = content(project, OUTS[stage]), server.logs / f"{stage}.points"
    ended = server.run(copy_project(project, home), COMMANDS[stage], record=str(log))
    assert ended.status == 0, ended
    rows, after = count_rows(home / OUTS[stage]), copy_project(home, project.with_name(f"after-{project.name}"))
    return StageRun(stage, server, project, home, after, read_points(log), older, content(home), rows)


def kills(run: StageRun) -> list[tuple[Point, Sequence[Any]]]:
    """Every way to kill the stage: before each point, and in the middle of writing each file that gets its name."""
    points = list(run.points)
    before = [(point, ("signal", 9)) for point in points]
    torn = [(points[i - 1], ("limit_files", run.points[point] // 2))
            for i, point in enumerate(points) if run.points[point] > 1 and i > 0]  # fmt: skip
    return [*before, *torn]


def kill_and_repeat(run: StageRun, at: Point, do: Sequence[Any]) -> list[str]:
    """Kill the stage, run the same command again, and return what is not as after an undisturbed run."""
    pid = run.server.start(run.fresh(), COMMANDS[run.stage], at=at, do=do)
    killed = run.server.wait(pid)
    problems = [] if killed.status < 0 else [f"it was not killed: {killed}"]
    kind = (
        "kill -9 before a change of the disk" if do[0] == "signal" else "killed by the kernel in the middle of a write"
    )
    return [f"{at} {do}: {problem}" for problem in finish(run, kind, pid, problems)]


def finish(run: StageRun, kind: str, pid: int, problems: Sequence[str] = ()) -> list[str]:
    """Look at what a fault has left, run the same command again, and enter the trial into the ledger.

    Args:
        run: the undisturbed one; its folder is as the fault has left it.
        kind: of the fault.
        pid: the process that it ended.
        problems: known by now.

    Returns:
        All that is not as after an undisturbed run.
    """
    found = [*problems, *half_written(run)]
    if not wait_until(lambda: not session_of(pid)):
        found.append(f"processes are left: {session_of(pid)}")
    found += repeat(run)
    enter(kind, run.stage, found, run.rows - count_rows(run.home / OUTS[run.stage]))
    return found


def point_in(run: StageRun, part: float) -> Point:
    """The point at which a part of all files of the stage have their names."""
    named = [point for point in run.points if point.event == "os.rename"]
    return named[int(part * len(named))]


def half_written(run: StageRun) -> list[str]:
    """What is wrong with the output of a killed stage: it is the older one, the new one, or not there."""
    out = OUTS[run.stage]
    found = content(run.home, out)
    new = {path: digest for path, digest in run.result.items() if f"{path}/".startswith(f"{out}/")}
    if found in (run.older, new, {}):
        return []
    return [f"its output is half of one: {difference(found, new)}"]


def repeat(run: StageRun, options: Sequence[str] = (), **fault: Any) -> list[str]:
    """Run the stage again, and return how the project then differs from that after an undisturbed run."""
    ended = run.server.run(run.home, [*COMMANDS[run.stage], *options], **fault)
    problems = [] if ended.status == 0 else [f"the same command failed: {ended}"]
    found = content(run.home)
    return problems if found == run.result else [*problems, f"the result differs: {difference(found, run.result)}"]


def difference(found: Content, expected: Content) -> str:
    """The files that two folders do not have in common."""
    words = {"missing": expected.keys() - found.keys(), "left": found.keys() - expected.keys(),
             "other": {path for path in found.keys() & expected.keys() if found[path] != expected[path]}}  # fmt: skip
    return "; ".join(f"{word}: {', '.join(sorted(paths))}" for word, paths in words.items() if paths)
