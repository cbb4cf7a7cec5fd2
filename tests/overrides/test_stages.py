"""What a person said reaches captions and rows, survives another detection, and is undone to the byte."""

import os
import shlex
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from studio.browsing import in_browser, visiting
from studios import studio
from typer.testing import CliRunner

from stages.cli import app
from taming_core.errors import TamingError
from taming_core.overrides import statements, table
from taming_core.photos.masks import decode_mask

ROOT = Path(__file__).parents[2]
OVERRIDES = Path("data/overrides.parquet")
OBJECTS = Path("data/objects.parquet")
TAGGED = "a <object> that nobody else would describe"


def taming(*command: str) -> str:
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def new_project(folder: Path) -> Path:
    """A project of `mini` with two photos of each of two objects."""
    taming("init", str(folder), "--profile", "mini")
    for identity in ("robot-fluent3d", "socks-openmoji"):
        (folder / "data/raw" / identity).mkdir()
        for photo in sorted((ROOT / "data/raw" / identity).glob("*.jpg"))[:2]:
            shutil.copy(photo, folder / "data/raw" / identity)
    return folder


@pytest.fixture(scope="module")
def detected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = new_project(tmp_path_factory.mktemp("project") / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        taming("detect")
    return folder


@pytest.fixture
def project(detected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(detected, tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


def made() -> str:
    """What the commands of the project's dvc.yaml print that follow detection."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return "".join(taming(*shlex.split(stages[name]["cmd"])[1:]) for name in ("caption", "materialize"))


def files() -> dict[str, bytes]:
    found = (Path("data/captions.parquet"), Path("data/rows-dropped.parquet"), *sorted(Path("data/rows").glob("*")))
    return {path.name: path.read_bytes() for path in found}


def main_objects() -> list[dict[str, Any]]:
    """The kept objects with the identity of their photo."""
    found = pq.read_table(OBJECTS).to_pylist()
    return [r for r in found if r["drop_reason"] is None and r["identity"] != r["object_id"]]


def rows() -> dict[str, dict[str, Any]]:
    return {r["row_id"]: r for path in Path("data/rows").glob("*.parquet") for r in pq.read_table(path).to_pylist()}


def test_every_stage_honours_what_a_person_said_and_undoing_it_gives_the_bytes_of_before(project: Path) -> None:
    made()
    before, detected = files(), OBJECTS.read_bytes()
    rejected, corrected = main_objects()[0], main_objects()[-1]
    mask = np.zeros_like(decode_mask(corrected["mask_png"]))
    mask[100:160, 90:170] = True
    said = [
        statements.reject(rejected),
        statements.with_mask(corrected, mask),
        statements.with_class(corrected, "slipper"),
        statements.with_caption(corrected, TAGGED),
    ]
    table.append(OVERRIDES, *said)
    assert f"{OVERRIDES}: what a person said of 2 objects" in made()
    assert OBJECTS.read_bytes() == detected
    assert rejected["object_id"] not in {r["object_id"] for r in pq.read_table("data/captions.parquet").to_pylist()}
    assert rejected["object_id"] not in rows()
    row = rows()[corrected["object_id"]]
    assert (row["class"], row["object_caption"]) == ("slipper", TAGGED)
    assert row["caption"] == TAGGED.replace("<object>", "slipper")
    captions = {r["object_id"]: r for r in pq.read_table("data/captions.parquet").to_pylist()}
    assert captions[corrected["object_id"]]["method"] == "override"
    assert captions[corrected["object_id"]]["drop_reason"] is None
    shown = np.asarray(Image.open(BytesIO(row["mask"]["bytes"]))) > 127
    assert np.isclose(shown.mean(), mask.mean(), rtol=0.05)  # the whole photo is the target, scaled

    assert table.undo(OVERRIDES, said) == []
    made()
    assert files() == before
    OVERRIDES.unlink()
    taming("caption")  # a project without the table
    taming("materialize")
    assert files() == before


def test_it_survives_another_detection(project: Path) -> None:
    table.append(OVERRIDES, statements.reject(main_objects()[0]))
    made()
    before, said = files(), OVERRIDES.read_bytes()
    OBJECTS.unlink()
    taming("detect")
    made()
    assert files() == before
    assert OVERRIDES.read_bytes() == said
    for made_table in ("objects.parquet", "captions.parquet", "rows"):
        assert "data.html shows" in taming("inspect", f"data/{made_table}", "--html", "data.html")
        page = Path("data.html").read_text(encoding="utf-8")
        assert f"<h1>{made_table}</h1>" in page
        assert page.count("data:image/webp") >= 4
    with pytest.raises(TamingError, match="--only has no effect with --html"):
        taming("inspect", str(OBJECTS), "--html", "data.html", "--only", "kept")


def test_an_object_that_is_restored_is_captioned_and_becomes_a_row(project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["detect"] |= {"area_min": 0.01, "area_max": 0.02}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    taming("detect")
    objects = [r for r in pq.read_table(OBJECTS).to_pylist() if (r["drop_reason"] or "").startswith("too large")]
    table.append(OVERRIDES, statements.restore(objects[0]))
    made()
    assert {i for i, row in rows().items() if not row["regularization"]} == {objects[0]["object_id"]}


def test_a_table_that_is_named_has_to_be_there(project: Path) -> None:
    with pytest.raises(TamingError, match=r"There is no other\.parquet"):
        taming("materialize", "--overrides", "other.parquet")
    with pytest.raises(TamingError, match="no effect without a table of objects"):
        taming("caption", "--in", "data/raw/robot-fluent3d", "--overrides", str(OVERRIDES))


def test_inspect_marks_what_a_person_said(project: Path) -> None:
    objects = main_objects()
    said = statements.reject(objects[0]), statements.with_class(objects[1], "tin <b>robot</b>")
    table.append(OVERRIDES, *said)
    printed = taming("inspect", str(OBJECTS), "--out", "sheet.html")
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert "a person: rejected" in page
    assert "dropped: rejected by a person" in page
    assert "tin &lt;b&gt;robot&lt;/b&gt;" in page
    assert "rejected by a person" in printed
    assert f"{OVERRIDES}: what a person said of 2 objects" in printed
    table.undo(OVERRIDES, said)
    taming("inspect", str(OBJECTS), "--out", "sheet.html")
    assert "a person" not in Path("sheet.html").read_text(encoding="utf-8")


def dvc(*command: str) -> str:
    """What it prints; it runs the commands of this checkout."""
    program = [sys.executable, "-m", "dvc", *command]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def press(project: Path, key: str, until: str) -> None:
    """Choose the first object in the studio, press a key, and wait until the page says so."""
    with studio(project, project.parent / "log") as address, visiting(address) as visit:
        visit.open_tab("Data")
        visit.page.locator("#data-gallery .thumbnail-lg").first.click()
        visit.page.locator("#data-facts", has_text="kept" if key == "x" else "rejected").wait_for()
        visit.page.keyboard.press(key)
        visit.page.locator("#data-facts", has_text=until).wait_for()


@pytest.mark.slow
@in_browser
def test_an_override_of_the_browser_survives_dvc_repro_and_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project := new_project(tmp_path / "mine"))
    dvc("init", "-q", "--no-scm")
    dvc("repro", "materialize")
    before, objects = files(), OBJECTS.read_bytes()
    press(project, "x", "rejected by a person")
    said = OVERRIDES.read_bytes()
    printed = dvc("repro", "materialize")
    assert "Running stage 'caption'" in printed
    assert "Running stage 'materialize'" in printed
    assert "Running stage 'detect'" not in printed
    assert OBJECTS.read_bytes() == objects
    rejected = files()
    assert rejected != before
    dvc("repro", "--force", "materialize")  # detection too: what was said stays, and is honoured
    assert OVERRIDES.read_bytes() == said
    assert files() == rejected
    press(project, "u", "kept")
    dvc("repro", "materialize")
    assert files() == before
