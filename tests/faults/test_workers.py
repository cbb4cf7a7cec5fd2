"""Worker processes that are killed are replaced, and end with the command that started them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from faults.ledger import enter
from faults.projects import COMMANDS, OUTS, ROOT, count_rows
from faults.stage_runs import StageRun, finish, point_in, repeat

from taming_core.drop_reasons import KILLS_WORKER

RunOf = Callable[[str], StageRun]
POOLS = ("detect", "caption")  # stages with worker processes
WORKERS = ["--workers", "2"]
PHOTO = "alien-openmoji/1.jpg"  # the second of three
HOOK = str(Path(__file__).with_name("in_workers"))


def kills(folder: Path, count: int, victim: str = "") -> dict[str, str]:
    """The environment in which workers, or another process, are killed so many times when they open the photo."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / str(number)).write_text(victim)
    path = os.pathsep.join([HOOK, str(ROOT)])
    return {"PYTHONPATH": path, "TAMING_KILLS": str(folder), "TAMING_KILLED_BY": PHOTO}


def replace_workers(run: StageRun, folder: Path) -> list[str]:
    """Have the workers of a stage killed twice by one photo, the second time with other photos on their way."""
    run.fresh()
    env = kills(folder, 2)
    problems = repeat(run, WORKERS, env=env)
    problems += [f"they were not killed: {left}"] if (left := list(folder.iterdir())) else []
    enter("kill -9 of a worker", run.stage, problems, run.rows - count_rows(run.home / OUTS[run.stage]))
    return problems


def test_killed_workers_are_replaced_and_their_photos_read_again(run_of: RunOf, tmp_path: Path) -> None:
    assert replace_workers(run_of("detect"), tmp_path / "kills") == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", POOLS)
def test_the_killed_workers_of_every_stage_are_replaced(verb: str, run_of: RunOf, tmp_path: Path) -> None:
    assert replace_workers(run_of(verb), tmp_path / "kills") == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", POOLS)
def test_a_photo_that_kills_its_workers_is_a_row_with_that_reason(verb: str, run_of: RunOf, tmp_path: Path) -> None:
    run = run_of(verb)
    home = run.fresh()
    ended = run.server.run(home, [*COMMANDS[verb], *WORKERS], env=kills(tmp_path / "kills", 20))
    table, expected = (pq.read_table(folder / OUTS[verb]).to_pylist() for folder in (home, run.after))
    reasons = {row["drop_reason"] for row in table if row["file_name"] == PHOTO}
    others = [[row for row in rows if row["file_name"] != PHOTO] for rows in (table, expected)]
    problems = [] if reasons == {KILLS_WORKER} and others[0] == others[1] else [f"{ended} {reasons}"]
    enter("photo that kills its workers", verb, problems, len(others[1]) - len(others[0]))
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("verb", POOLS)
def test_workers_end_with_a_command_that_is_killed(verb: str, part: float, run_of: RunOf) -> None:
    run = run_of(verb)
    argv, at = [*COMMANDS[verb], *WORKERS], point_in(run, part)
    pid = run.server.start(run.fresh(), argv, at=at, do=("signal", int(signal.SIGKILL)))
    ended = run.server.wait(pid)
    problems = [] if ended.status == -signal.SIGKILL else [f"it was not killed: {ended}"]
    assert finish(run, "kill -9 of the command, which has workers", pid, problems) == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", POOLS)
def test_a_command_whose_processes_are_all_killed_goes_on(verb: str, run_of: RunOf) -> None:
    run = run_of(verb)
    run.fresh()
    problems = repeat(run, WORKERS, at=point_in(run, 0), do=("kill_others",))
    enter("kill -9 of all processes but the command", verb, problems, 0)
    assert problems == []


RAY = ["--engine", "ray", "--ray-address", "local", "--actors", "2"]
RAY_STAGES = ("detect", "caption", "materialize")


@pytest.mark.slow
@pytest.mark.parametrize("verb", RAY_STAGES)
def test_a_killed_actor_of_ray_is_replaced(verb: str, run_of: RunOf, tmp_path: Path) -> None:
    run = run_of(verb)
    run.fresh()
    problems = repeat(run, RAY, env=kills(tmp_path / "kills", 1, "parent"))
    problems += [f"it was not killed: {left}"] if (left := list((tmp_path / "kills").iterdir())) else []
    enter("kill -9 of an actor of Ray", verb, problems, run.rows - count_rows(run.home / OUTS[verb]))
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", RAY_STAGES)
def test_a_killed_driver_of_ray_goes_on(verb: str, run_of: RunOf, tmp_path: Path) -> None:
    """With the local engine, since the shards are the same."""
    run = run_of(verb)
    env = kills(tmp_path / "kills", 0)
    pid = run.server.start(run.fresh(), [*COMMANDS[verb], *RAY], env=env)
    (tmp_path / "kills/driver").write_text(str(pid))
    ended = run.server.wait(pid)
    problems = [] if ended.status == -signal.SIGKILL else [f"it was not killed: {ended}"]
    assert finish(run, "kill -9 of the driver of Ray", pid, problems) == []
