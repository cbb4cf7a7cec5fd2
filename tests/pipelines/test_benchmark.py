"""The benchmark: its tables, and all of its stages in smoke size."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from project_copy import ROOT, smoke_run

from pipelines.benchmark.table import controls, markdown
from taming_core.params.load import load_params
from taming_core.params.protocols import load_protocol

FOLDER = ROOT / "pipelines/benchmark"
LEFT_BEHIND = ("data/", "docs/", "pipelines/ablation/", "pipelines/mini/base/")


def row(condition: str, identity: str, **scores: float) -> dict[str, Any]:
    return {"condition": condition, "identity": identity, "kind": "scene", **scores}


ROWS = [
    *(row("ours", name, strict_cosine=0.5, judge_cosine=0.6, scene_accuracy=1.0) for name in "abc"),
    *(row("dreambooth", name, strict_cosine=0.25, judge_cosine=0.3) for name in "abc"),
    *(row("dreambooth_step_10", name, strict_cosine=0.125, judge_cosine=0.1) for name in "ab"),
    *(row("pasted", name, judge_cosine=0.9, copy_score=0.4) for name in "abc"),
]
TIMINGS = {"seconds_per_object": 0.25, "bytes_per_object": 2048, "dreambooth_seconds_per_object": 1234.5}


def test_every_condition_has_its_scores_and_what_an_object_costs() -> None:
    main, copying, curve = markdown(ROWS, TIMINGS).split("## ")[1:]
    lines = {line.split(" | ")[0].strip("| "): line for line in main.splitlines() if line.startswith("| ")}
    assert list(lines)[1:] == ["this encoder", "DreamBooth", "the seen photo itself"]
    assert lines["this encoder"].endswith("| 0.25 | 2 | – |")
    assert "0.50 (0.50 to 0.50)" in lines["this encoder"]
    assert lines["DreamBooth"].endswith("| 1,234.50 | – | – |")
    assert "0.40 (0.40 to 0.40)" in copying
    assert "| DreamBooth, 10 steps |" in curve
    assert "the seen photo itself" not in curve


def test_the_curve_is_of_the_objects_that_every_variant_was_drawn_for() -> None:
    assert controls(ROWS) == {"a", "b"}
    assert controls([r for r in ROWS if "step" not in r["condition"]]) == {"a", "b", "c"}


@pytest.mark.parametrize("args", ["", "smoke.args"])
def test_params_and_protocol_are_valid_in_every_size(args: str) -> None:
    values = {
        name: yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in ("params.yaml", "sizes.yaml")
    }
    overrides = shlex.split((FOLDER / args).read_text(encoding="utf-8"), comments=True)[1::2] if args else []
    for override in overrides:
        file, (key, value) = override.split(":", 1)[0], override.split(":", 1)[1].split("=", 1)
        *parts, last = key.split(".")
        section = values[Path(file).name]
        for part in parts:
            section = section[part]
        assert last in section, key
        section[last] = yaml.safe_load(value)
    params = load_params(FOLDER / "params.yaml")
    protocol = load_protocol(values["sizes.yaml"]["protocol"], params.evaluate)
    assert protocol.evaluate.baselines == ["class-noun", "textual-inversion", "dreambooth-lora", "dreambooth"]
    assert protocol.evaluate.pasted
    assert protocol.evaluate.judge_check


def test_the_protocol_file_is_that_of_the_protocol() -> None:
    sizes = yaml.safe_load((FOLDER / "sizes.yaml").read_text(encoding="utf-8"))
    assert (ROOT / sizes["protocol_file"]).stem == sizes["protocol"]


@pytest.mark.slow
def test_the_whole_runs_in_smoke_size(tmp_path: Path) -> None:
    copy = smoke_run(tmp_path / "taming", LEFT_BEHIND, "pipelines/benchmark/dvc.yaml", "table", by_dvc="photos")
    out = copy / "out/benchmark"
    lines = (out / "evaluation/scores.jsonl").read_text(encoding="utf-8").splitlines()
    drawn = {json.loads(line)["condition"] for line in lines}
    assert drawn == {
        "ours", "no_object", "another_object", "real_photos", "pasted", "class_noun", "guidance_1.5",
        *(f"{m}{s}" for m in ("textual_inversion", "dreambooth_lora", "dreambooth") for s in ("", "_step_1")),
    }  # fmt: skip
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| DreamBooth LoRA |" in table
    assert json.loads((out / "evaluation/protocol.json").read_text(encoding="utf-8"))["name"] == "smoke"
    assert (out / "evaluation/judge_check.json").is_file()
