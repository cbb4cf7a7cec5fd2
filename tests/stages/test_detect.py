"""The stage with the shipped networks, in processes of its own, because one of them is killed."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from taming_core.drop_reasons import reason_of
from taming_core.params.load import packaged_params
from taming_core.photos.folder import list_photos
from taming_core.photos.masks import decode_mask
from taming_core.tables import schema

RAW = packaged_params().parent / "data" / "raw"
DETECT = ("detect", "--in", "raw", "--device", "cpu")
IDENTITIES = ("alien-openmoji", "robot-fluent3d")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with six good photos, the bad ones, and params with two photos a shard."""
    folder = tmp_path_factory.mktemp("home")
    for name in (*IDENTITIES, "broken"):
        (folder / "raw" / name).mkdir(parents=True)
        for photo in sorted((RAW / name).iterdir())[: 3 if name in IDENTITIES else None]:
            (folder / "raw" / name / photo.name).write_bytes(photo.read_bytes())
    (folder / "raw" / "README.md").write_text("not a photo")
    (folder / "raw" / IDENTITIES[0] / "0.txt").write_text("a small alien")
    params = yaml.safe_load(packaged_params().read_text())
    params["detect"] |= {"shard_size": 2, "batch_size": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(packaged_params().parent), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = [sys.executable, "-c", "from stages.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, cwd=home, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def taming(home: Path, *arguments: str) -> str:
    process = start(home, *arguments)
    out, problems = process.communicate(timeout=300)
    assert process.returncode == 0, problems
    return out


@pytest.fixture(scope="module")
def resumed(home: Path) -> str:
    """What a run prints that goes on where another was killed."""
    (home / "raw" / "robot-fluent3d" / "1.jpg").write_bytes(b"")
    process = start(home, *DETECT, "--out", "objects.parquet")
    wait_for(home, "runs/detect-*/00000[0-5].parquet", 2, process)
    process.kill()  # at the third of six shards, each of which takes some time
    process.communicate()
    assert not (home / "objects.parquet").exists()
    return taming(home, *DETECT, "--out", "objects.parquet")


def wait_for(home: Path, pattern: str, count: int, process: subprocess.Popen[str]) -> None:
    """Return as soon as the run has made `count` such files."""
    deadline = time.monotonic() + 240
    while len(list(home.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_kill_9_the_same_command_gives_the_same_bytes(home, resumed):
    assert not list(home.glob("runs/detect-*"))  # what the killed run left was found, used and removed
    assert taming(home, *DETECT, "--out", "undisturbed.parquet") == resumed.replace("objects", "undisturbed")
    assert (home / "objects.parquet").read_bytes() == (home / "undisturbed.parquet").read_bytes()


@pytest.mark.usefixtures("resumed")
def test_nothing_vanishes_and_bad_files_have_their_reasons(home):
    rows = pq.read_table(home / "objects.parquet").to_pylist()
    assert pq.read_schema(home / "objects.parquet").names == schema.OBJECTS.names
    files = [p.relative_to(home / "raw").as_posix() for p in list_photos(home / "raw")]
    assert list(dict.fromkeys(r["file_name"] for r in rows)) == files
    reasons = {r["file_name"]: r["drop_reason"] for r in rows if r["object_id"] is None}
    truncated = reasons.pop("broken/truncated.jpg")
    assert truncated.startswith("unreadable: image file is truncated")
    assert reasons == {
        "broken/empty.jpg": "empty file",
        "broken/notes.jpg": "not an image",
        "broken/same-again.jpg": "copy of another photo: alien-openmoji/2.jpg",
        "broken/tiny.png": "photo too small: 20x20",
        "robot-fluent3d/1.jpg": "empty file",
    }


@pytest.mark.usefixtures("resumed")
def test_objects_no_model_has_seen_are_found_and_cut_out(home):
    kept = [r for r in pq.read_table(home / "objects.parquet").to_pylist() if r["drop_reason"] is None]
    assert {r["identity"] for r in kept} >= set(IDENTITIES)
    for row in kept:
        mask = decode_mask(row["mask_png"])
        assert mask.shape == (row["photo_height"], row["photo_width"])
        assert mask.mean() == pytest.approx(row["area_fraction"], abs=1e-6)


def test_the_counts_are_printed(home, resumed):
    rows = pq.read_table(home / "objects.parquet").column("drop_reason").to_pylist()
    for reason, count in Counter(map(reason_of, rows)).items():
        assert re.search(rf"^ *{count}  {reason} ", resumed, re.MULTILINE), resumed
    assert resumed.startswith("objects.parquet: 11 photos")
    assert resumed.endswith("raw: 1 caption beside photos\nnot photos: README.md\n")


@pytest.mark.usefixtures("resumed")
def test_inspect_draws_a_sheet(home):
    said = taming(home, "inspect", "objects.parquet", "--raw", "raw", "--rows", "12")
    assert "empty file" in said
    with Image.open(home / "objects.png") as sheet:
        assert sheet.width > 1000
    taming(home, "inspect", "objects.parquet", "--raw", "raw", "--only", "kept", "--out", "kept.html")
    assert "dropped:" not in (home / "kept.html").read_text()
