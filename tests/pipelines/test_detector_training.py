"""The training of the detector."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipelines.mini import detector
from pipelines.mini.stage_params import PARAMS, load_section
from taming_core.objects.detector import load_detector
from taming_core.objects.filters import Detections
from taming_core.world.artwork import Pictures, World, class_nouns, load_pictures, load_world
from taming_core.world.photos import render
from taming_core.world.plan import Chances


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def pictures(world: World) -> Pictures:
    return load_pictures(world)


def assert_well_formed(found: Detections, height: int, width: int) -> None:
    count = len(found.scores)
    assert found.boxes_xyxy.shape == (count, 4)
    assert found.masks.shape == (count, height, width)
    assert len(found.classes) == count
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [width, height, width, height]).all()


def few(**changed: Any) -> dict[str, Any]:
    full = YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8"))
    return full["detector"] | {"photos": 8, "size": 64, "epochs": 1, "batch_size": 4, "min_pixels": 20} | changed


def test_full_size_params_of_the_detector_are_valid() -> None:
    load_section(detector.DetectorParams, "detector")


def test_labels_outline_the_visible_objects(tmp_path: Path, world: World, pictures: Pictures) -> None:
    photos = render(world, pictures, 0, 0, 4, 64, chances=Chances(two_objects=1))
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    detector.write_photos(photos, tmp_path, "train", first=4, end=7, min_pixels=20)
    files = sorted((tmp_path / "labels" / "train").iterdir())
    assert [f.stem for f in files] == ["000004", "000005", "000006"]  # without the photo beyond the end
    for file, subjects, masks in zip(files, photos.objects, photos.masks, strict=False):
        shown = [s for s, m in zip(subjects, masks, strict=True) if m.sum() >= 20]
        lines = [line.split() for line in file.read_text().splitlines()]
        assert [class_nouns()[int(line[0])] for line in lines] == [s.noun for s in shown]
        for line, subject in zip(lines, shown, strict=True):
            points = np.array(line[1:], float).reshape(-1, 2) * 64
            x0, y0, x1, y1 = subject.box_xyxy
            assert points.min() >= 0
            assert (points.max(0) <= [x1, y1]).all()
            assert (points.min(0) >= [x0, y0]).all()


def test_the_command_writes_a_detector_that_the_library_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run finds the finished training of the first."""
    monkeypatch.chdir(tmp_path)
    YAML().dump({"detector": few()}, tmp_path / "params.yaml")
    app = typer.Typer(rich_markup_mode=None)
    app.command()(detector.main)
    for out in ("first", "second"):
        command = ["--params", "params.yaml", "--out", out, "--device", "cpu"]
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    (first,), (second,) = (
        load_detector(str(tmp_path / out), "cpu", 64, 0.0, 3)([image]) for out in ("first", "second")
    )
    assert_well_formed(first, 64, 64)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [p.name for p in (tmp_path / "runs").glob("mini-det*")]
