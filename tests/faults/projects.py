"""A project so small that its stages take seconds, and what it has on disk, in a form that can be compared."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import tiny
import yaml
from faults.injection import without_own_names
from small_rows import write_rows

from taming_core.params.arguments import EVALUATION_FILES
from taming_core.params.load import packaged_params
from taming_core.tables import schema

ROOT = Path(__file__).parents[2]
PHOTOS = {"alien-openmoji": 2, "robot-fluent3d": 1}  # of data/raw
OBJECTS, CAPTIONS = "data/objects.parquet", "data/captions.parquet"
COMMANDS = {
    "detect": ["detect", "--in", "raw", "--out", OBJECTS, "--device", "cpu"],
    "caption": ["caption", "--in", "raw", "--objects", OBJECTS, "--out", CAPTIONS, "--device", "cpu"],
    "materialize": ["materialize", "--in", "raw", "--objects", OBJECTS, "--captions", CAPTIONS, "--out", "data/rows"],
    "train": ["train", "--in", "tiny_rows", "--out", "data/encoder", "--device", "cpu"],
    "eval": ["eval", "--encoder", "start", "--in", "small_rows", "--out", "data/evaluation", "--device", "cpu"],
}  # fmt: skip
OUTS = {"detect": OBJECTS, "caption": CAPTIONS, "materialize": "data/rows", "train": "data/encoder",
        "eval": "data/evaluation"}  # fmt: skip
TABLES = {"detect": schema.OBJECTS, "caption": schema.CAPTIONS}
DATA_STAGES = ("detect", "caption", "materialize")
# Names of files that differ from run to run; .ses is a library's, in the folder of temporary files.
TIMES = ("timings.json", "events.out.tfevents", ".ses")

Content = Mapping[str, str]  # a digest by the path of a file from the project's folder; of a folder it is empty


def make_project(home: Path) -> None:
    """Write photos, rows, a tiny pipeline and the params; the models of the other stages are mini's."""
    (home / "tmp").mkdir(parents=True)
    for name, count in PHOTOS.items():
        (home / "raw" / name).mkdir(parents=True)
        for photo in sorted((ROOT / "data/raw" / name).iterdir())[:count]:
            shutil.copy(photo, home / "raw" / name)
    write_rows(home / "small_rows", held_out=2, seen=1)
    tiny.write_rows(home / "tiny_rows")
    tiny.pipeline().save_pretrained(home / "start")
    (home / "params.yaml").write_text(yaml.safe_dump(small_params()))


def small_params() -> dict[str, dict[str, object]]:
    """The default's, with shards of one photo, two steps of training, and two images."""
    params = yaml.safe_load(packaged_params().read_text())
    for stage in DATA_STAGES:
        params[stage]["shard_size"] = 1
    steps = {"steps": 2, "batch_size": 2, "micro_batch_size": 1, "save_every": 1, "warmup": 1, "cache": ["text"]}
    alone = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}
    params["train"] |= {"start": "start", **steps, **alone}
    params["evaluate"] |= {"scenes": ["on the beach"], "styles": [], "objects": 1, "control_objects": 1,
                           "strict_judge": None}  # fmt: skip
    for sampling in (params["evaluate"]["sampling"], params["train"]["validation"]["sampling"]):
        sampling["steps"] = 1
    return params


def content(home: Path, below: str = "") -> Content:
    """All that is in a folder of a project, hidden files too, but for the times that stages took.

    A killed process with workers cannot remove the folder of a socket that Python's multiprocessing has made.
    """
    found = [path for path in (home / below, *(home / below).rglob("*")) if path != home and path.exists()]
    found = [path for path in found if not path.relative_to(home).as_posix().startswith("tmp/pymp-")]
    return {without_own_names(path.relative_to(home).as_posix()): digest(path) for path in found}


def digest(path: Path) -> str:
    """A hash of what a file holds, without times."""
    if not path.is_file() or without_own_names(path.name) in TIMES:
        return ""
    data = path.read_bytes()
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in data.splitlines()]
        data = json.dumps([{**line, "images_per_second": None} for line in lines]).encode()
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def count_rows(path: Path) -> int:
    """The rows of a table, of a folder of tables, or of the lists (*.jsonl) of an encoder or an evaluation."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    tables = sum(pq.read_metadata(file).num_rows for file in files if file.suffix == ".parquet")
    return tables + sum(len(file.read_text().splitlines()) for file in files if file.suffix == ".jsonl")


def copy_project(home: Path, to: Path) -> Path:
    """A copy with the times of all files, in the place of an earlier one."""
    shutil.rmtree(to, ignore_errors=True)  # a mounted folder stays
    shutil.copytree(home, to, dirs_exist_ok=True)
    return to


def make_older(home: Path, stage: str) -> None:
    """Write an output as an earlier run with other inputs could have left it."""
    out = home / OUTS[stage]
    if stage in TABLES:
        schema.write([], TABLES[stage], out)
    elif stage == "materialize":
        tiny.write_rows(out)
    elif stage == "train":
        out.mkdir(parents=True)
        shutil.copy(home / "start/model_index.json", out)
        (out / "README.md").write_text("older")
    else:
        out.mkdir(parents=True)
        for name in EVALUATION_FILES[-3:]:
            (out / name).write_text("{}")
