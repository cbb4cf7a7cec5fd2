"""Commands that are interrupted, that meet another one, whose clock jumps, or whose photos change meanwhile."""

import os
import shutil
import signal
from collections.abc import Callable, Sequence

import pyarrow.parquet as pq
import pytest
from faults.ledger import enter
from faults.processes import state_of, wait_until
from faults.projects import COMMANDS, DATA_STAGES, OUTS, TABLES, content, copy_project, count_rows
from faults.stage_runs import StageRun, difference, finish, point_in, repeat, undisturbed

RunOf = Callable[[str], StageRun]
HOURS = ([0, -5, 7, -48, 24 * 365], [-3, 3])  # that a clock is wrong by
PARTS = (0.0, 0.5, 0.99)  # of the files of a stage that have their names when it is interrupted


def interrupt(run: StageRun, number: int, part: float) -> list[str]:
    """Send a signal to a stage, and look at how it ends."""
    at = point_in(run, part)
    pid = run.server.start(run.fresh(), COMMANDS[run.stage], at=at, do=("signal", number))
    ended = run.server.wait(pid)
    expected = (130, "Run the same command again") if number == signal.SIGINT else (-signal.SIGTERM, "")
    told = ended.status == expected[0] and expected[1] in ended.err and "Traceback" not in ended.err
    kind = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    problems = finish(run, kind, pid, [] if told else [f"ended otherwise: {ended}"])
    return [f"{at}: {problem}" for problem in problems]


def test_an_interrupted_stage_says_how_to_go_on(run_of: RunOf) -> None:
    assert interrupt(run_of("materialize"), signal.SIGINT, 0.5) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_stage_in_order(stage: str, number: int, run_of: RunOf) -> None:
    assert [problem for part in PARTS for problem in interrupt(run_of(stage), number, part)] == []


def meet(run: StageRun) -> list[str]:
    """Start a stage twice, look at what the second says, and kill the first."""
    at = point_in(run, 0.5)
    first = run.server.start(run.fresh(), COMMANDS[run.stage], at=at, do=("signal", signal.SIGSTOP))
    stopped = wait_until(lambda: state_of(first)[0] == "T", 120)
    second = run.server.run(run.home, COMMANDS[run.stage])
    told = second.status == 1 and f"{OUTS[run.stage]} is being written by" in second.err and str(first) in second.err
    os.kill(first, signal.SIGKILL)
    killed = run.server.wait(first)
    problems = [] if stopped and told and killed.status == -signal.SIGKILL else [f"they met otherwise: {second}"]
    return finish(run, "two runs on one output, the first killed", first, problems)


def test_the_second_of_two_runs_names_the_first_whose_lock_ends_with_it(run_of: RunOf) -> None:
    assert meet(run_of("materialize")) == []


@pytest.mark.slow
def test_no_stage_runs_twice_at_once(stage: str, run_of: RunOf) -> None:
    assert meet(run_of(stage)) == []


def jump(run: StageRun, hours: Sequence[float]) -> list[str]:
    """Kill a stage whose clock jumps; then its clock is right."""
    pid = run.server.start(run.fresh(), COMMANDS[run.stage], clock=hours, at=point_in(run, 0.7), do=("signal", 9))
    run.server.wait(pid)
    return finish(run, "clock that jumps by hours, then kill -9", pid)


def test_a_clock_that_jumps_changes_nothing(run_of: RunOf) -> None:
    assert jump(run_of("materialize"), HOURS[0]) == []


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_stage(stage: str, run_of: RunOf) -> None:
    run = run_of(stage)
    assert [problem for hours in HOURS for problem in jump(run, hours)] == []
    assert repeat_with_clock(run) == []


def repeat_with_clock(run: StageRun) -> list[str]:
    """Run a stage whose clock jumps to its end."""
    run.fresh()
    problems = repeat(run, clock=HOURS[0])
    enter("clock that jumps by hours", run.stage, problems, 0)
    return problems


PHOTO, OTHER = "raw/robot-fluent3d/0.jpg", "raw/alien-openmoji/0.jpg"  # the last in the order of tables, and the first


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.0, 0.3])
@pytest.mark.parametrize("verb", TABLES)
def test_a_photo_that_vanishes_is_a_row_with_its_reason(verb: str, part: float, run_of: RunOf) -> None:
    """While photos are listed, or after it."""
    run = run_of(verb)
    home = run.fresh()
    pid = run.server.start(home, COMMANDS[verb], at=point_in(run, part), do=("remove", PHOTO))
    ended = run.server.wait(pid)
    rows = pq.read_table(home / OUTS[verb]).to_pylist()
    reasons = {row["drop_reason"] for row in rows if row["file_name"] == PHOTO.removeprefix("raw/")}
    told = ended.status == 0 and len(reasons) == 1 and None not in reasons
    problems = [] if told else [f"{ended} {reasons}"]
    shutil.copy2(run.project / PHOTO, home / PHOTO)
    problems += repeat(run)
    enter("photo that vanishes", verb, problems, run.rows - count_rows(home / OUTS[verb]))
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", DATA_STAGES)
def test_what_was_made_of_a_photo_before_it_changed_is_made_again(verb: str, run_of: RunOf) -> None:
    """A stage is killed after its first photo, which then changes; the state of before stays, and is not used."""
    run = run_of(verb)
    changed = copy_project(run.project, run.project.with_name(f"changed-{verb}"))
    shutil.copyfile(changed / PHOTO, changed / OTHER)
    expected = undisturbed(verb, run.server, changed, run.home)
    home = run.fresh()
    pid = run.server.start(home, COMMANDS[verb], at=point_in(run, 0.5), do=("signal", 9))
    run.server.wait(pid)
    shutil.copy2(changed / OTHER, home / OTHER)
    ended = run.server.run(home, COMMANDS[verb])
    shutil.rmtree(home / "runs")
    (home / "runs").mkdir()
    found = content(home)
    problems = [] if ended.status == 0 and found == expected.result else [difference(found, expected.result)]
    enter("photo that changes after kill -9", verb, problems, expected.rows - count_rows(home / OUTS[verb]))
    assert problems == []
