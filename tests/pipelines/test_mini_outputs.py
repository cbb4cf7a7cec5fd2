"""No command of pipelines/mini writes into the package, unless it ships."""

import inspect
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipelines.mini import card, ship
from pipelines.mini.stage_params import HERE, OUT, require_outside_package
from taming_core.errors import TamingError
from taming_core.weights.mini import BASE, MINI

PRINTING = ("ship", "notice", "attribute_measures")  # ship writes into the package, the others print
COMMANDS = sorted(
    path.stem for path in HERE.glob("*.py") if "\ndef main(" in path.read_text() and path.stem not in PRINTING
)
GUARDED = [name for name in COMMANDS if name != "compare_runs"]  # which takes two folders of evaluations


def invoke(name: str, *arguments: str) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(import_module(f"pipelines.mini.{name}").main)
    return CliRunner().invoke(app, list(arguments))


def state_of(folder: Path) -> dict[str, int]:
    return {str(f): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


def test_every_command_is_checked() -> None:
    assert {"artwork", "autoencoder", "base", "captioner", "card", "clip", "detector", "judges", "matcher",
            "measure_objects", "segmenter", "teacher_features", "tower"} < set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_default_outputs_are_below_out_mini(name: str) -> None:
    default = inspect.signature(import_module(f"pipelines.mini.{name}").main).parameters["out"].default
    assert default is None or default.is_relative_to(OUT)


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("folder", [MINI / "clip", BASE])
def test_an_output_among_the_shipped_weights_is_refused(name: str, folder: Path) -> None:
    before = state_of(MINI) | state_of(BASE)
    result = invoke(name, "--out", str(folder))
    assert isinstance(result.exception, TamingError), result.output
    assert "pipelines.mini.ship" in str(result.exception)
    assert state_of(MINI) | state_of(BASE) == before


def test_other_outputs_are_accepted(tmp_path: Path) -> None:
    assert require_outside_package(tmp_path) == tmp_path
    assert require_outside_package(OUT / "clip") == OUT / "clip"


def weights_for_a_card(folder: Path) -> Path:
    """A copy of what the card reads."""
    for file in [*MINI.rglob("metrics.json"), *(MINI / "world").glob("*.parquet"), *MINI.rglob("*.safetensors")]:
        target = folder / file.relative_to(MINI)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return folder


def test_the_card_is_written_to_the_weights_only_with_ship(tmp_path: Path) -> None:
    weights = weights_for_a_card(tmp_path / "mini")
    before = state_of(weights)
    card.main(weights=weights, out=tmp_path / "out")
    assert state_of(weights) == before
    assert (tmp_path / "out" / card.CARD).is_file()
    card.main(weights=weights, out=tmp_path / "other", ship=True)
    assert (weights / card.CARD).is_file()
    assert not (tmp_path / "other").exists()


def test_ship_replaces_nothing_if_a_model_is_missing(tmp_path: Path) -> None:
    (tmp_path / "made" / "world").mkdir(parents=True)
    with pytest.raises(TamingError, match="has no clip"):
        ship.main(tmp_path / "made", tmp_path / "mini", tmp_path / "base", tmp_path / "shipped.json")
    assert not (tmp_path / "mini").exists()
