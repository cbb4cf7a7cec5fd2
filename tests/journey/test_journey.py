"""The journey on a few real photos, by the very commands that the documentation and the help texts show."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from project_copy import copy_tracked
from shown import ROOT, Block, blocks, commands
from typer.testing import CliRunner

from stages.cli import app
from taming_core.images.families import load_pipeline
from taming_core.params.load import packaged_params
from taming_core.tables import rows, schema

IDENTITIES = ["robot-fluent3d", "socks-openmoji", "hibiscus-twemoji", "cherries-fluent3d", "scroll-noto", "broken"]
SMALL = {
    "materialize": {"validation": 0.3, "test": 0.4},
    "train": {"steps": 2, "batch_size": 2, "micro_batch_size": 1, "save_every": 1},
    "evaluate": {"objects": 2, "control_objects": 1, "scenes": ["on the beach"], "styles": []},
}
# Pages of which every command and every Python block is run here.
RUN = [
    "README.md", "docs/README.md", "docs/explanation/stages.md", "docs/how-to/masks.md", "docs/how-to/captions.md",
    "docs/how-to/metadata.md", "docs/how-to/resume.md", "docs/how-to/generate.md", "docs/how-to/synthetic.md",
    "docs/reference/tables.md",
]  # fmt: skip
JOURNEY = ["detect", "caption", "materialize", "train", "eval"]


def small_params() -> dict[str, Any]:
    """The default's params with as little work as shows everything."""
    params = yaml.safe_load(packaged_params().read_text())
    for section, values in SMALL.items():
        params[section] |= values
    params["train"]["validation"] |= {"every": 2, "objects": 1, "prompts": ["a photo of a <object> on the beach"]}
    params["baseline"]["prior"] |= {"images": 1, "steps": 1}
    params["baseline"]["dreambooth_lora"]["steps"] = 1
    for sampling in (params["train"]["validation"], params["evaluate"], params["generate"]):
        sampling["sampling"]["steps"] = 1
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a user would have it: photos, params, nothing else."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params()))
    for name in IDENTITIES:
        copy_tracked(folder / "data/raw" / name, f"data/raw/{name}")
        for photo in sorted((folder / "data/raw" / name).glob("*.jpg"))[3:]:
            if name != "broken":
                photo.unlink()
    copy_tracked(folder / "data/regularization", "data/regularization")
    shutil.copytree(folder / "data/raw", folder / "raw")
    shutil.copy(ROOT / "data/raw/robot-fluent3d/0.jpg", folder / "photo.jpg")
    Image.open(folder / "photo.jpg").convert("RGBA").save(folder / "subject.png")
    Image.new("L", Image.open(folder / "photo.jpg").size, 255).save(folder / "mask.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def taming(*arguments: str) -> str:
    """What a command prints; its errors are raised."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def shown_commands() -> list[list[str]]:
    """Every `taming` command of the README, of the pages about mini, and of the help texts, in journey order."""
    found = [command for page in RUN for command in commands(ROOT / page)]
    for command in [*JOURNEY, "generate", "baseline", "export", "inspect"]:
        help_text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "250"}).output
        lines = re.findall(r"^\s*(?:Example:\s*)?taming (.+)$", help_text, re.MULTILINE)
        found += [shlex.split(line, comments=True) for line in lines]
    unique = [json.loads(c) for c in dict.fromkeys(json.dumps(c) for c in found)]
    # The journey's own commands are run first by the fixture; `--help` has its own test.
    return [c for c in unique if "--help" not in c]


@pytest.fixture(scope="module")
def journey(project: Path) -> dict[str, str]:
    """The five commands without any argument, as DVC's order has them, and what they print."""
    regularization = {
        "materialize": ["--regularization", "data/regularization"],
        "caption": ["--objects", "data/objects.parquet"],
    }
    return {command: taming(command, *regularization.get(command, [])) for command in JOURNEY}


def test_each_stage_counts_what_it_kept(journey: dict[str, str]) -> None:
    assert all("kept" in journey[c] for c in ("detect", "caption", "materialize"))


def test_no_photo_vanishes(project: Path, journey: dict[str, str]) -> None:
    names = {str(p.relative_to("data/raw")) for p in Path("data/raw").rglob("*") if p.is_file()}
    for table, expected in (("objects", schema.OBJECTS), ("captions", schema.CAPTIONS)):
        found = [r for b in schema.iter_rows(Path(f"data/{table}.parquet"), expected, 64) for r in b]
        assert {r["file_name"] for r in found} == names
        # same-again.jpg is a copy of a photo that this small project leaves out.
        broken = [r for r in found if r["file_name"].startswith("broken/") and "same-again" not in r["file_name"]]
        assert broken
        assert all(r["drop_reason"] for r in broken)


def test_captions_hold_the_object_token(journey: dict[str, str]) -> None:
    found = schema.kept_rows(r for b in schema.iter_rows(Path("data/captions.parquet"), schema.CAPTIONS, 64) for r in b)
    with_object = [r for r in found if r["object_id"]]
    assert len(with_object) >= 8
    assert all(r["object_caption"].count("<object>") == 1 for r in with_object)


def test_identities_do_not_straddle_splits(journey: dict[str, str]) -> None:
    splits = {s: {r["identity"] for r in schema_rows(s) if r["identity"]} for s in ("train", "validation", "test")}
    assert all(splits.values())
    assert not splits["train"] & splits["test"]
    assert not splits["train"] & splits["validation"]


def schema_rows(split: str) -> list[dict[str, Any]]:
    """All rows of a split."""
    found = rows.load_rows(Path("data/rows"), split)
    return [found[i] for i in range(len(found))]


def test_the_encoder_folder_opens_as_a_pipeline(journey: dict[str, str]) -> None:
    assert load_pipeline("data/encoder").object_encoder.config["tokens"] == 256


def test_scores_are_numbers_in_range(journey: dict[str, str]) -> None:
    metrics = json.loads(Path("data/evaluation/metrics.json").read_text())
    assert 0 <= metrics["ours"]["judge_top1"] <= 1
    assert Path("data/evaluation/report.html").stat().st_size > 50_000


@pytest.mark.parametrize("command", shown_commands(), ids=" ".join)
def test_every_shown_command_runs(journey: dict[str, str], command: list[str]) -> None:
    assert taming(*command)


PYTHON = [block for page in RUN for block in blocks(ROOT / page, "python")]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_runs(journey: dict[str, str], block: Block) -> None:
    exec(block.code, {})
