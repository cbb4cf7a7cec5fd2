"""The chain behind `mini`, from packages to model card: every stage runs, in smoke size, in a copy of the project."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from taming_core.customize import TamingPipeline
from taming_core.world.artwork import load_world

ROOT = Path(__file__).parents[1]
LEFT_BEHIND = (
    "data/",
    "docs/",
    "dvc.lock",
    "pipelines/mini/base/",
    "taming_core/pretrained/mini/",
)  # the chain makes its own


def run(command: list[str], cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # dvc and taming of this environment
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(cwd),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    program = shutil.which(command[0], path=path) or command[0]
    done = subprocess.run([program, *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without weights, after `dvc exp run` with the overrides of smoke.args."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the artwork comes from its packages")
    folder = tmp_path_factory.mktemp("chain") / "taming"
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
    for name in (n for n in listed if not n.startswith(LEFT_BEHIND) and (ROOT / n).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    run(["git", "init", "-q"], folder)
    run(["git", "add", "-A"], folder)
    run(["git", *who, "commit", "-qm", "The project without weights"], folder)
    overrides = shlex.split((folder / "pipelines/mini/smoke.args").read_text(), comments=True)
    run(["dvc", "exp", "run", "pipelines/mini/dvc.yaml", *overrides], folder)
    return folder


@pytest.mark.timeout(900)
def test_every_stage_ran(copy: Path) -> None:
    lock = yaml.safe_load((copy / "pipelines/mini/dvc.lock").read_text())["stages"]
    stages = yaml.safe_load((copy / "pipelines/mini/dvc.yaml").read_text())["stages"]
    assert {name.split("@")[0] for name in lock} == set(stages)


def test_what_was_made_opens(copy: Path) -> None:
    shipped = copy / "taming_core/pretrained/mini"
    assert load_world(shipped / "world").of_split("unseen-concepts")
    assert TamingPipeline.from_pretrained(shipped / "encoder").object_encoder.config.injection == "concat"
    assert all(f.stat().st_size < 20_000_000 for f in copy.rglob("*.safetensors") if "out" not in f.parts)


def test_the_evaluation_is_of_what_was_made(copy: Path) -> None:
    metrics = json.loads((copy / "out/mini/evaluation/metrics.json").read_text())
    assert 0 <= metrics["ours"]["scene_accuracy"] <= 1
    Image.open(copy / "out/mini/evaluation/sheet.png").verify()


def test_the_card_tells_of_every_model(copy: Path) -> None:
    card = (copy / "taming_core/pretrained/mini/README.md").read_text()
    for role in ("detector", "segmenter", "captioner", "matcher", "autoencoder", "encoder", "judge"):
        assert role in card
    missing = [line for line in card.splitlines() if "not measured" in line]
    assert all("from found boxes" in line for line in missing)  # a detector of two steps finds nothing


def test_a_second_run_has_nothing_to_do(copy: Path) -> None:
    assert "up to date" in run(["dvc", "status", "pipelines/mini/dvc.yaml"], copy)
