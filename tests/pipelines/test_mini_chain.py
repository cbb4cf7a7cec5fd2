"""The chain behind `mini`, from packages to model card: every stage runs, in smoke size, in a copy of the project."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from project_copy import run, smoke_run

from taming_core.images.families import TamingPipeline
from taming_core.world.artwork import load_world

LEFT_BEHIND = (
    "data/",
    "docs/",
    "dvc.lock",
    "pipelines/mini/base/",
    "taming_core/mini/",
)  # the chain makes its own


@pytest.fixture(scope="module", params=["artwork", pytest.param("card", marks=pytest.mark.slow)])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without weights, after the chain with the overrides of smoke.args, by DVC up to the stage `param`."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the artwork comes from its packages")
    folder = tmp_path_factory.mktemp("chain") / "taming"
    return smoke_run(folder, LEFT_BEHIND, "pipelines/mini/dvc.yaml", "card", by_dvc=request.param)


@pytest.mark.timeout(900)
def test_every_stage_ran(copy: Path) -> None:
    lock = yaml.safe_load((copy / "pipelines/mini/dvc.lock").read_text())["stages"]
    stages = yaml.safe_load((copy / "pipelines/mini/dvc.yaml").read_text())["stages"]
    assert {name.split("@")[0] for name in lock} == set(stages)


def test_what_was_made_opens(copy: Path) -> None:
    shipped = copy / "taming_core/mini"
    assert load_world(shipped / "world").of_split("unseen-concepts")
    assert TamingPipeline.from_pretrained(shipped / "encoder").object_encoder.config.injection == "concat"
    assert all(f.stat().st_size < 20_000_000 for f in copy.rglob("*.safetensors") if "out" not in f.parts)


def test_the_evaluation_is_of_what_was_made(copy: Path) -> None:
    metrics = json.loads((copy / "out/mini/evaluation/metrics.json").read_text())
    assert 0 <= metrics["ours"]["scene_accuracy"] <= 1
    Image.open(copy / "out/mini/evaluation/sheet.png").verify()


def test_the_card_tells_of_every_model(copy: Path) -> None:
    card = (copy / "taming_core/mini/README.md").read_text()
    for role in ("detector", "segmenter", "captioner", "matcher", "autoencoder", "encoder", "judge"):
        assert role in card
    missing = [line for line in card.splitlines() if "not measured" in line]
    assert all("from found boxes" in line for line in missing)  # a detector of two steps finds nothing


def test_a_second_run_has_nothing_to_do(copy: Path) -> None:
    assert "up to date" in run(["dvc", "status", "pipelines/mini/dvc.yaml"], copy)
