"""A disk that is full or read-only ends a stage with two sentences, and then nothing of its work is lost."""

from collections.abc import Callable

import pytest
from faults.disks import read_only, resize, small_disk, used
from faults.projects import COMMANDS, copy_project
from faults.stage_runs import StageRun, finish

RunOf = Callable[[str], StageRun]
LARGE = 1 << 30
PARTS = (0.0, 0.3, 0.6, 0.9)  # of what the stage writes: so much fits on the disk


def fill_disk(run: StageRun, part: float) -> list[str]:
    """Run a stage on a disk with too little room, then on the same disk with enough."""
    before = used(run.project)
    with small_disk(run.home, LARGE):
        copy_project(run.project, run.home)
        resize(run.home, before + int(part * (used(run.after) - before)))
        pid = run.server.start(run.home, COMMANDS[run.stage])
        ended = run.server.wait(pid)
        resize(run.home, LARGE)
        told = ended.status == 1 and "Free some space there" in ended.err
        told = told and "Traceback" not in ended.err
        problems = finish(run, "disk full", pid, [] if told else [f"ended otherwise: {ended}"])
    return [f"{part}: {problem}" for problem in problems]


def test_a_full_disk_is_told_and_what_is_finished_is_kept(run_of: RunOf) -> None:
    assert fill_disk(run_of("materialize"), 0.6) == []


@pytest.mark.slow
def test_a_disk_that_is_full_anywhere_loses_nothing(stage: str, run_of: RunOf) -> None:
    assert [problem for part in PARTS for problem in fill_disk(run_of(stage), part)] == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["data", "runs"])
def test_a_place_that_cannot_be_written_is_named(stage: str, folder: str, run_of: RunOf) -> None:
    run = run_of(stage)
    home = run.fresh()
    with read_only(home / folder):
        pid = run.server.start(home, COMMANDS[stage])
        ended = run.server.wait(pid)
    told = ended.status == 1 and "allows no new files" in ended.err and "Traceback" not in ended.err
    assert finish(run, f"read-only folder: {folder}", pid, [] if told else [f"ended otherwise: {ended}"]) == []
