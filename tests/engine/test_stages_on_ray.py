"""The data stages with the shipped networks: tables of actors, some of them killed, are those of one machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
import yaml
from ray_processes import wait_for_processes_of

from taming_core.params.load import packaged_params

RAW = packaged_params().parent / "data" / "raw"
IDENTITIES = ("alien-openmoji", "robot-fluent3d", "broken")
STAGES = {
    "detect": ("--in", "raw", "--device", "cpu", "--out"),
    "caption": ("--in", "raw", "--objects", "local/detect.parquet", "--device", "cpu", "--out"),
    "materialize": (
        "--in", "raw", "--objects", "local/detect.parquet", "--captions", "local/caption.parquet", "--out",
    ),
}  # fmt: skip
OUT = {"detect": "detect.parquet", "caption": "caption.parquet", "materialize": "rows"}
TWO = ("--engine", "ray", "--actors", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ray_folder: Path) -> Path:
    """A working directory with photos, some of them bad, and params with two photos a shard."""
    folder = tmp_path_factory.mktemp("home")
    for name in IDENTITIES:
        (folder / "raw" / name).mkdir(parents=True)
        for photo in sorted((RAW / name).iterdir())[:6]:
            (folder / "raw" / name / photo.name).write_bytes(photo.read_bytes())
    params = yaml.safe_load(packaged_params().read_text())
    for stage in STAGES:
        params[stage] |= {"shard_size": 2} if "shard_size" in params[stage] else {}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "ray").symlink_to(ray_folder)
    for stage in STAGES:
        end(start(folder, stage, "local"))
    return folder


def start(home: Path, stage: str, folder: str, *options: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(packaged_params().parent), "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_TMPDIR": str((home / "ray").readlink())}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", "from stages.cli import main; main()", stage, *STAGES[stage]]
    return subprocess.Popen(
        [*command, f"{folder}/{OUT[stage]}", *options],
        cwd=home, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process: "subprocess.Popen[str]") -> str:
    out, problems = process.communicate(timeout=500)
    assert (process.returncode, problems) == (0, "")
    return out


def content(home: Path, stage: str, folder: str) -> dict[str, str]:
    out = home / folder / OUT[stage]
    files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(home / folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_actors_make_the_table_of_one_machine(home: Path, stage: str) -> None:
    out = end(start(home, stage, "two", *TWO))
    assert out.startswith(f"two/{OUT[stage]}: "), "Ray prints nothing"
    assert content(home, stage, "two") == content(home, stage, "local")
    assert list((home / "ray").iterdir()) == [], "nothing of Ray is left"


@pytest.mark.slow
def test_after_a_killed_actor_and_a_killed_command_the_table_is_the_same(home: Path) -> None:
    command = start(home, "detect", "killed", *TWO)
    wait_for_shards(home, command, 1)
    next(actors(command)).kill()
    wait_for_shards(home, command, 4)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    (left,) = (home / "ray").resolve().iterdir()
    wait_for_processes_of(left)
    assert not (home / "killed" / "detect.parquet").exists()
    end(start(home, "detect", "killed", "--engine", "ray", "--actors", "4"))
    assert content(home, "detect", "killed") == content(home, "detect", "local")
    assert list((home / "ray").iterdir()) == [], "what the killed one left is removed, too"


def actors(command: "subprocess.Popen[str]") -> Iterator[psutil.Process]:
    below = psutil.Process(command.pid).children(recursive=True)
    return (process for process in below if process.name().startswith("ray::MapWorker"))


def wait_for_shards(home: Path, command: "subprocess.Popen[str]", count: int) -> None:
    while len(list(home.glob("runs/detect-*/[0-9]*.parquet"))) < count:
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)
