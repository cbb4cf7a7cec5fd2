"""The tutorials, line by line, in the projects that they make: with little work, and tiny models of published bases."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import shown
import tiny
import tiny_bases
import yaml
from base_pipelines import tower
from PIL import Image
from shown import ROOT
from typer.testing import CliRunner

from stages.cli import app
from taming_core.params.load import packaged_params

TUTORIALS = ROOT / "docs/tutorials"
LITTLE = {
    "materialize": {"validation": 0.2, "test": 0.3},
    "train": {"steps": 2, "batch_size": 4, "micro_batch_size": 2, "warmup": 0, "save_every": 1},
    "evaluate": {"objects": 2, "control_objects": 1, "scenes": ["on the beach"], "styles": [], "images_per_prompt": 1},
}
NOT_RUN = ("pip", "dvc", "torchrun")  # tests/test_shown.py checks what they name
PIECES = {"armchair-green": "robot-fluent3d", "lamp-brass": "nest-with-eggs-fluent3d", "chair": "cherries-fluent3d",
          "table": "scroll-noto", "sofa": "canoe-fluent3d", "shelf": "socks-openmoji"}  # fmt: skip
Change = Callable[[Path], None]


def taming(words: list[str]) -> None:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def follow(page: str, prepare: Change, edited: str | None = None, names: dict[str, str] | None = None) -> None:
    """Run a tutorial from the working directory: its commands, its edits of the file `edited`, and its Python.

    Args:
        page: its name.
        prepare: called with the folder of a project that `taming init` has just written.
        edited: the params file that the tutorial's YAML blocks change; None skips them.
        names: what stands in the place of names in Python.
    """
    for block in shown.blocks(TUTORIALS / page, "bash", "yaml", "python"):
        if block.language == "bash":
            for words in shown.lines(block):
                run(words, prepare)
        elif block.language == "yaml" and edited:
            change_params(Path(edited), yaml.safe_load(block.code))
        elif block.language == "python":
            code = block.code
            for name, there in (names or {}).items():
                assert name in code
                code = code.replace(name, there)
            exec(code, {})


def run(words: list[str], prepare: Change) -> None:
    """Run one line of a shell block."""
    match words:
        case ["cd", folder]:
            os.chdir(folder)
        case ["cp", source, target]:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        case ["taming", *rest]:
            taming(rest)
            if rest[0] == "init":
                prepare(Path(rest[1]))
        case [program, *_]:
            assert program in NOT_RUN


def change_params(path: Path, changes: dict[str, Any]) -> None:
    """Change keys of sections in a params file."""
    params = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params))


def little_work(folder: Path) -> None:
    """The params of mini with as little work as shows everything."""
    change_params(folder / "params.yaml", LITTLE)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train"]["validation"] |= {"every": 2, "objects": 1, "prompts": ["a photo of a <object> on the beach"]}
    for sampling in (params["train"]["validation"], params["evaluate"], params["generate"]):
        sampling["sampling"]["steps"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def tiny_models(family: str) -> Change:
    """Photos for a project of a published base, and tiny models of its classes in its params."""

    def prepare(written: Path) -> None:
        folder = written.resolve()
        for piece, identity in PIECES.items():
            for number, photo in enumerate(sorted((ROOT / "data/raw" / identity).glob("*.jpg"))[:2]):
                target = folder / "data/raw" / piece / f"{number + 1}.jpg"
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(photo, target)
        Image.new("RGBA", (64, 64), (200, 30, 40, 255)).save(folder / "cutout.png")
        mini, params = (yaml.safe_load(p.read_text()) for p in (packaged_params(), folder / "params.yaml"))
        params |= {section: mini[section] for section in ("detect", "caption", "materialize")}
        params["materialize"] |= {"size": 32, "subject_size": 32}
        train = params["train"]
        train |= {"base": tiny_bases.saved(family, folder / "base"), "precision": "fp32"}
        train["encoder"] |= {"tower": tower(), "tokens": 4, "tower_blocks": min(1, train["encoder"]["tower_blocks"])}
        train["prior"] = train["prior"] and 1
        train["identity_network"] = train["identity_network"] and tiny.clip(folder / "clip")
        params["evaluate"] = {**mini["evaluate"], "sampling": params["evaluate"]["sampling"]}
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        little_work(folder)

    return prepare


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project of the first tutorial, after it; the working directory is beside it."""
    home = tmp_path_factory.mktemp("home")
    with chdir(home):
        follow("mini.md", little_work)
        yield home / "first"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # and back, wherever a tutorial has gone
    return tmp_path


def test_mini_in_five_minutes(first: Path) -> None:
    assert (first / "data/evaluation/report.html").is_file()
    assert (first / "out/beach/sheet.png").is_file()
    assert (first / "snow.png").is_file()


def test_one_ablation_in_the_same_project(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(first)
    follow("ablation.md", little_work, edited="unweighted.yaml")
    trained = [yaml.safe_load((first / name).read_text())["train"] for name in ("params.yaml", "unweighted.yaml")]
    assert [train.pop("mask_weight") for train in trained] == [1.0, 0.0]
    assert trained[0] == trained[1]


def test_your_furniture(home: Path) -> None:
    follow("furniture.md", tiny_models("sd15"))
    assert (home / "furniture/out/library/sheet.png").is_file()
    assert (home / "furniture/beach.png").is_file()


def test_a_flux_ip_adapter(home: Path) -> None:
    follow("comfyui.md", tiny_models("flux"), names={"black-forest-labs/FLUX.1-dev": "base"})
    assert (home / "adapter/beach.png").is_file()
    assert (home / "adapter/ComfyUI/models/ipadapter/mine-plus.safetensors").is_file()
