"""Runs as files tell of them, and the command of a project as a process of its own."""

import json
import os
import platform
import time
from pathlib import Path

import pytest

from taming_core.errors import TamingError
from taming_core.studio import child, runs

LINES = [
    {"step": n, "loss": 1 / n, "denoising": 1 / n, "identity": None, "images_per_second": 2.0} for n in range(1, 5)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run that stopped after 4 of 8 steps, in the middle of a line."""
    (folder := tmp_path / "runs/train-a").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 5, "lo')
    (folder / "settings.json").write_text(json.dumps({"params": {"train": {"steps": 8}}}))
    for step in (4, 2):
        (folder / f"grid-{step:06d}.png").write_bytes(b"")
    return folder


def test_a_run_is_read_from_its_folder(folder: Path, tmp_path: Path) -> None:
    (run,) = runs.runs(tmp_path)
    assert (run.name, runs.state(run)) == ("train-a", "step 4 of 8, stopped")
    assert list(runs.metrics(run)) == LINES
    assert runs.curve(runs.metrics(run), "identity") == []
    assert [step for step, _ in runs.curve(runs.metrics(run), "loss")] == [1, 2, 3, 4]
    assert [(step, path.name) for step, path in runs.grids(run)] == [(2, "grid-000002.png"), (4, "grid-000004.png")]


def test_the_process_that_trains_a_run_is_known_by_its_lock(folder: Path, tmp_path: Path) -> None:
    holder = folder.parent / ".train-a.holder.json"
    (run,) = runs.runs(tmp_path)
    for pid, training in ((os.getpid(), True), (2**22 + 1, False)):
        holder.write_text(json.dumps({"pid": pid, "host": platform.node()}))
        assert run.is_training == training


def test_new_lines_are_seen(folder: Path, tmp_path: Path) -> None:
    (run,) = runs.runs(tmp_path)
    assert len(runs.metrics(run)) == 4
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('ss": 1.0}\n')
    assert len(runs.metrics(run)) == 5


def test_curves_of_many_steps_have_few_points() -> None:
    lines = [{"step": n, "loss": float(n % 2)} for n in range(1, 10_001)]
    points = runs.curve(lines, "loss")
    assert len(points) <= runs.MAX_POINTS + 1
    assert points[-1][0] == 10_000
    assert 0.49 < points[-1][1] < 0.51


def test_a_finished_encoder_whose_run_is_gone_has_its_curves(tmp_path: Path) -> None:
    (encoder := tmp_path / "data/encoder").mkdir(parents=True)
    (encoder / "training.json").write_text(json.dumps({"run": "train-b", "params": {"steps": 4}}))
    (encoder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (run,) = runs.runs(tmp_path)
    assert (run.name, runs.state(run)) == ("data/encoder", "step 4 of 4, finished")


def wait_until_ended(project: Path) -> None:
    for _ in range(1200):
        if child.running_command(project) is None:
            return
        time.sleep(0.1)
    raise AssertionError("the command did not end")


@pytest.fixture
def slow_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which `taming train` is a program that prints, and then waits."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "taming").write_text("#!/bin/sh\nprintf 'half\\rwhole\\n'\nexec sleep 60\n")
    (programs / "taming").chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(programs / "python"))
    return tmp_path


def test_a_command_runs_by_itself_and_is_stopped_with_all_that_it_started(slow_program: Path) -> None:
    project = slow_program
    child.start("taming train", project)
    assert child.running_command(project) == "taming train"
    with pytest.raises(TamingError, match=r"`taming train` is running\. Stop it"):
        child.start("taming train", project)
    for _ in range(100):
        if "whole" in child.log(project):
            break
        time.sleep(0.1)
    child.stop(project)
    wait_until_ended(project)
    assert child.log(project).split("\n")[:2] == ["$ taming train", "whole"]
    assert "taming train: exit status 143" in child.log(project)
    with pytest.raises(TamingError, match=r"Nothing is running\. Start a command first\."):
        child.stop(project)


def test_only_commands_of_the_project_are_started(tmp_path: Path) -> None:
    assert child.commands(tmp_path) == ["taming train"]
    with pytest.raises(TamingError, match=r"is no command of this project"):
        child.start("touch owned", tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {detect: {cmd: taming detect}, train: {cmd: taming train}}")
    assert child.commands(tmp_path) == ["dvc repro", "dvc repro detect", "dvc repro train", "taming train"]
