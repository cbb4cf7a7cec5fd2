"""Two terminals: of two same commands one ends as if it were alone, and the other says which command that is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
import yaml
from accelerate.state import AcceleratorState
from small_rows import write_rows

from stages.cli import app
from taming_core.errors import TamingError
from taming_core.params.load import packaged_params

ROOT = Path(__file__).parents[2]
OBJECTS, CAPTIONS = "data/objects.parquet", "data/captions.parquet"
COMMANDS = {
    "detect": ["detect", "--in", "raw", "--out", OBJECTS, "--device", "cpu"],
    "caption": ["caption", "--in", "raw", "--objects", OBJECTS, "--out", CAPTIONS, "--device", "cpu"],
    "materialize": ["materialize", "--in", "raw", "--objects", OBJECTS, "--captions", CAPTIONS, "--out", "data/rows"],
    "train": ["train", "--in", "tiny_rows", "--out", "data/encoder", "--device", "cpu"],
    "eval": ["eval", "--encoder", "mini", "--in", "small_rows", "--out", "data/evaluation", "--device", "cpu"],
    "generate": ["generate", "--object", "raw/alien-openmoji/0.jpg", "--prompt", "a photo of <object>", "--steps", "1",
                 "--encoder", "mini", "--out", "data/pictures", "--device", "cpu"],
}  # fmt: skip
OUTS = {"detect": OBJECTS, "caption": CAPTIONS, "materialize": "data/rows", "train": "data/encoder",
        "eval": "data/evaluation", "generate": "data/pictures"}  # fmt: skip
PHOTOS = 4


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, rows, a tiny pipeline to train, and params of small stages."""
    home = tmp_path_factory.mktemp("project")
    for name in ("alien-openmoji", "robot-fluent3d"):
        (home / "raw" / name).mkdir(parents=True)
        for photo in sorted((ROOT / "data/raw" / name).iterdir())[: PHOTOS // 2]:
            shutil.copy(photo, home / "raw" / name)
    write_rows(home / "small_rows", held_out=2, seen=1)
    tiny.write_rows(home / "tiny_rows")
    tiny.pipeline().save_pretrained(home / "start")
    params = yaml.safe_load(packaged_params().read_text())
    params["detect"]["shard_size"] = params["caption"]["shard_size"] = params["materialize"]["shard_size"] = 1
    small = {"start": str(home / "start"), "steps": 2, "batch_size": 2, "micro_batch_size": 1, "save_every": 1}
    alone = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}
    params["train"] |= {**small, **alone, "warmup": 1}
    params["evaluate"] |= {"scenes": ["on the beach"], "styles": [], "objects": 2, "control_objects": 1}
    for sampling in (params["evaluate"]["sampling"], params["train"]["validation"]["sampling"]):
        sampling["steps"] = 1
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    return home


def start(home: Path, command: list[str]) -> subprocess.Popen[str]:
    """The command in a process that is stopped as soon as it holds its last lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from stages.cli import main; main()", *command], cwd=home, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not [*home.glob("runs/.*.holder.json"), *home.glob("data/.pictures.holder.json")]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    return process


@pytest.mark.parametrize("verb", COMMANDS)
def test_one_ends_right_and_the_other_names_it(verb: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    first = start(project, COMMANDS[verb])
    try:
        with pytest.raises(TamingError, match=rf"^{OUTS[verb]} is being written by .*{verb}.*process {first.pid} on "):
            app(COMMANDS[verb], standalone_mode=False)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        first.send_signal(signal.SIGCONT)
        printed, problems = first.communicate(timeout=240)
    assert first.returncode == 0, problems
    assert OUTS[verb] in printed.splitlines()[0]
    assert not list(project.glob("runs/.*")) + list(project.glob("data/.*")) + list(project.rglob("*.part"))


def test_nothing_was_lost(project: Path) -> None:
    """Of what the tests above have written."""
    photos = sorted(p.relative_to(project / "raw").as_posix() for p in (project / "raw").rglob("*.jpg"))
    assert len(photos) == PHOTOS
    for table in (OBJECTS, CAPTIONS):
        assert sorted(set(pq.read_table(project / table).column("file_name").to_pylist())) == photos
    rows = [r for path in (project / "data/rows").glob("*.parquet") for r in pq.read_table(path).to_pylist()]
    assert sorted({r["file_name"] for r in rows}) == photos
    assert (project / "data/encoder/model_index.json").is_file()
    assert (project / "data/evaluation/metrics.json").is_file()
