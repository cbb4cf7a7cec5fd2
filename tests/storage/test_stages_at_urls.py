"""The stages with every input and output in an object store give what they give on disk."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from object_store import ObjectStore, upload
from typer.testing import CliRunner
from upath import UPath

from stages.cli import app
from taming_core.params.load import packaged_params
from taming_core.storage.commit import committed, plain_name

ROOT = Path(__file__).parents[2]
IDENTITIES = ["robot-fluent3d", "socks-openmoji", "hibiscus-twemoji", "cherries-fluent3d"]
SMALL = {
    "materialize": {"validation": 0.3, "test": 0.4},
    "train": {"steps": 2, "batch_size": 2, "micro_batch_size": 1, "save_every": 1, "regularization": 0},
    "evaluate": {"objects": 2, "control_objects": 1, "scenes": ["on the beach"], "styles": []},
}


def small_params() -> dict[str, Any]:
    """The default's params with as little work as shows everything."""
    params = yaml.safe_load(packaged_params().read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section] |= values
    params["train"]["validation"] |= {"every": 2, "objects": 1, "prompts": ["a photo of a <object> on the beach"]}
    for sampling in (params["train"]["validation"], params["evaluate"]):
        sampling["sampling"]["steps"] = 1
    return params


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos and params, which is the working directory."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_params()), encoding="utf-8")
    for name in IDENTITIES:
        (tmp_path / "raw" / name).mkdir(parents=True)
        for number in range(3):
            shutil.copy(ROOT / f"data/raw/{name}/{number}.jpg", tmp_path / "raw" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taming(*arguments: object) -> str:
    """What a command prints; its errors are raised."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def make_rows(at: Path | UPath, *engine: str) -> None:
    """Photos to rows at a place that has photos in `raw`."""
    taming("detect", "--in", at / "raw", "--out", at / "objects.parquet", *engine)
    tables = ("--objects", at / "objects.parquet")
    taming("caption", "--in", at / "raw", *tables, "--out", at / "captions.parquet", *engine)
    tables = (*tables, "--captions", at / "captions.parquet")
    taming("materialize", "--in", at / "raw", *tables, "--out", at / "rows", *engine)


def contents(folder: Path | UPath) -> dict[str, bytes]:
    """The files of a folder of rows by their names, without the versions of a store in them."""
    if isinstance(folder, Path):
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {plain_name(name): (folder / name).read_bytes() for name in sorted(committed(folder))}


@pytest.mark.timeout(900)
def test_all_stages_in_a_store_give_the_same_files(project: Path, bucket: UPath, object_store: ObjectStore) -> None:
    upload(project / "raw", bucket / "raw")
    make_rows(project)
    make_rows(bucket)
    for table in ("objects", "captions", "rows-dropped"):
        name = f"{table}.parquet"
        assert (bucket / name).read_bytes() == (project / name).read_bytes(), table
    assert contents(bucket / "rows") == contents(project / "rows")
    assert not [path for path in bucket.glob(".taming/**/*") if path.is_file()]  # neither state nor locks

    taming("train", "--in", project / "rows", "--out", project / "encoder")
    shutil.rmtree(project / "runs")
    cache = project / "cache"
    taming("train", "--in", bucket / "rows", "--out", bucket / "encoder", "--cache-dir", cache)
    local = {p.relative_to(project / "encoder").as_posix(): p for p in (project / "encoder").rglob("*") if p.is_file()}
    assert set(committed(bucket / "encoder")) == set(local)
    for name, path in local.items():
        assert (bucket / "encoder" / name).read_bytes() == path.read_bytes(), name
    read = [path for path in (project / "rows").iterdir() if not path.name.startswith("test-")]
    assert len(list(cache.glob("*.parquet"))) == len(read)  # the held-out split of the evaluation is not fetched

    printed = taming("eval", "--encoder", bucket / "encoder", "--in", bucket / "rows", "--out", bucket / "evaluation")
    assert str(bucket / "evaluation") in printed
    taming("eval", "--encoder", project / "encoder", "--in", project / "rows", "--out", project / "evaluation")
    assert (bucket / "evaluation/metrics.json").read_bytes() == (project / "evaluation/metrics.json").read_bytes()
    printed = taming("inspect", bucket / "rows", "--raw", bucket / "raw", "--out", project / "sheet.png")
    assert "rows" in printed
    assert (project / "sheet.png").is_file()
