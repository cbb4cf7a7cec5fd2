"""`taming eval` with baselines, other guidances and pasted photos: on the same base, prompts and seeds, resumable."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from small_rows import artwork, row

from stages.evaluate import evaluate
from taming_core.errors import TamingError
from taming_core.evaluation import added_conditions, drawing, protocol
from taming_core.images.families import TamingPipeline, load_pipeline
from taming_core.params.baseline import BaselineParams
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import EvaluateParams
from taming_core.tables import schema
from taming_core.tables.rows import load_rows

ROOT = Path(__file__).parents[2]
RUN = "from stages.cli import main; main()"
BASELINES = ["textual-inversion", "dreambooth-lora", "dreambooth", "class-noun"]
SCENES, STYLES = ["on the beach"], ["a black and white photo of"]
PROMPTS = len(SCENES) + len(STYLES)


def params(**changes: Any) -> EvaluateParams:
    small = {"scenes": SCENES, "styles": STYLES, "objects": 2, "control_objects": 1}
    added = {"baselines": BASELINES, "guidance": [1.5], "pasted": True}
    p = load_params(packaged_params()).evaluate.model_dump()
    p["sampling"] |= {"steps": 2, "batch_size": 2}
    return EvaluateParams.model_validate({**p, **small, **added, **changes})


def baseline_params() -> BaselineParams:
    p = load_params(packaged_params()).baseline.model_dump()
    p["prior"] |= {"images": 2, "steps": 2}
    for method in ("textual_inversion", "dreambooth", "dreambooth_lora"):
        p[method] |= {"steps": 2}
    p["dreambooth_lora"]["checkpoints"] = [1]
    return BaselineParams.model_validate(p)


def write_rows(folder: Path, views: int = 2, noun: str | None = "apple") -> None:
    """Three held-out objects of a class and one of the training split."""
    things = artwork(4)
    for split, numbers in (("test", range(3)), ("train", range(3, 4))):
        rows = [row(things[i], f"thing-{i}", view, split) for i in numbers for view in range(views)]
        for r in rows:
            others = [o["row_id"] for o in rows if o["identity"] == r["identity"] and o is not r]
            r.update({"class": noun, "references": others})
        schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, folder / f"{split}-00000.parquet")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with rows and params, which is the working folder: baselines are kept below its runs/."""
    home = tmp_path_factory.mktemp("project")
    write_rows(home / "rows")
    sections = {"evaluate": params().model_dump(), "baseline": baseline_params().model_dump()}
    everything = yaml.safe_load(packaged_params().read_text())
    (home / "params.yaml").write_text(yaml.safe_dump({**everything, **sections}))
    with chdir(home):
        yield home


@pytest.fixture(scope="module")
def pipeline() -> TamingPipeline:
    return load_pipeline("mini")


@pytest.fixture(scope="module")
def evaluated(home: Path) -> Path:
    """The output of an undisturbed run."""
    evaluate("mini", home / "rows", home / "whole", home / "params.yaml", "cpu")
    return home / "whole"


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]


def records(home: Path) -> dict[Path, int]:
    """The records of trained baselines, and when each was written; not of one that is still being written."""
    found = home.glob("runs/baseline-*/*/baseline.json")
    return {path: path.stat().st_mtime_ns for path in found if path.parent.suffix != ".part"}


def draw(pipeline: TamingPipeline, home: Path, p: EvaluateParams, folder: Path) -> dict[str, bytes]:
    """The drawn files of an evaluation."""
    subjects = protocol.eval_subjects(home / "rows", p, "removed")
    drawing.draw(pipeline, subjects, p, baseline_params(), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_condition_is_scored(evaluated: Path) -> None:
    images = {c: sum(r["condition"] == c for r in rows_of(evaluated)) for c in
              json.loads((evaluated / "metrics.json").read_text())}  # fmt: skip
    everyone, controls = 2 * PROMPTS, PROMPTS
    assert images == {
        "ours": everyone, "textual_inversion": everyone, "dreambooth_lora": everyone, "dreambooth": everyone,
        "class_noun": everyone, "pasted": everyone, "guidance_1.5": controls, "dreambooth_lora_step_1": controls,
        "another_object": len(SCENES), "no_object": len(SCENES), "real_photos": 2,
    }  # fmt: skip


def test_a_condition_has_the_prompts_and_seeds_of_the_images_it_is_compared_with(evaluated: Path) -> None:
    ours = {(r["identity"], r["asked"]): r for r in rows_of(evaluated) if r["condition"] == "ours"}
    others = [r for r in rows_of(evaluated) if r["condition"] not in ("ours", "real_photos")]
    for r in others:
        beside = ours[r["identity"], r["asked"]]
        assert r["seed"] == beside["seed"]
        noun = r["condition"] == "class_noun"
        assert r["prompt"] == (beside["prompt"].replace("a <object>", "an apple") if noun else beside["prompt"])
    assert {(r["condition"], r["steps"]) for r in others if "steps" in r} == {
        ("textual_inversion", 2), ("dreambooth_lora_step_1", 1), ("dreambooth_lora", 2), ("dreambooth", 2),
    }  # fmt: skip
    assert {(r["condition"], r["guidance"]) for r in others if "guidance" in r} == {("guidance_1.5", 1.5)}


def test_the_images_of_conditions_differ(evaluated: Path) -> None:
    scene = [r for r in rows_of(evaluated) if r.get("asked") == SCENES[0] and r["identity"] == "thing-0"]
    first = {r["condition"]: (evaluated / "images" / r["image"]).read_bytes() for r in scene}
    assert len(set(first.values())) == len(first)


def test_a_pasted_photo_is_the_seen_one_and_wins_on_likeness_to_it(evaluated: Path, home: Path) -> None:
    subjects = {s.identity: s for s in protocol.eval_subjects(home / "rows", params(), "removed")}
    pasted = [r for r in rows_of(evaluated) if r["condition"] == "pasted"]
    for r in pasted:
        image = Image.open(evaluated / "images" / r["image"])
        assert np.array_equal(np.asarray(image), np.asarray(subjects[r["identity"]].training_photos[0]))
    metrics = json.loads((evaluated / "metrics.json").read_text())
    others = [m["judge_cosine_seen"] for c, m in metrics.items() if c != "pasted"]
    assert metrics["pasted"]["judge_cosine_seen"] > max(others)
    assert metrics["pasted"]["copying"] > metrics["ours"]["copying"]


def test_costs_stand_in_timings_by_condition(evaluated: Path, home: Path) -> None:
    timings = json.loads((evaluated / "timings.json").read_text())
    assert timings["bytes_per_object"] == 256 * 256 * 4
    assert 0 < timings["seconds_per_object"] < timings["dreambooth_seconds_per_object"]
    assert timings["dreambooth_lora_step_1_seconds_per_object"] < timings["dreambooth_lora_seconds_per_object"]
    sizes = [timings[f"{c}_bytes_per_object"] for c in ("textual_inversion", "dreambooth_lora", "dreambooth")]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert timings["peak_bytes_per_object"] >= 0
    assert all(isinstance(value, (int, float)) for value in timings.values())
    assert len(records(home)) == 3 * 2


def test_baselines_leave_the_pipeline_as_it_was(evaluated: Path, home: Path, pipeline: TamingPipeline) -> None:
    """The encoder's images are the same with and without baselines, and after them; all weights too."""
    weights = {name: w.clone() for name, w in pipeline.denoiser.state_dict().items()}
    again = draw(pipeline, home, params(), home / "again")
    after = draw(pipeline, home, params(baselines=[], guidance=[], pasted=False), home / "after")
    assert all(torch.equal(w, weights[name]) for name, w in pipeline.denoiser.state_dict().items())
    images = {path.name: path.read_bytes() for path in (evaluated / "images").iterdir()}
    assert again == images
    assert {name: images[name] for name in after} == after
    assert {name.split("-")[0] for name in after} == {"ours", "another_object", "no_object"}


def test_another_evaluation_of_the_same_base_trains_nothing(
    evaluated: Path, home: Path, pipeline: TamingPipeline
) -> None:
    before = records(home)
    scenes = ["underwater"]
    drawn = draw(pipeline, home, params(scenes=scenes, styles=[], guidance=[], pasted=False), home / "underwater")
    assert records(home) == before
    assert sum(name.startswith("dreambooth_lora-") for name in drawn) == 2
    assert evaluated.is_dir()


def test_images_do_not_depend_on_the_batch_size(evaluated: Path, home: Path, pipeline: TamingPipeline) -> None:
    p = params(guidance=[], pasted=False, baselines=["dreambooth-lora"])
    alone = p.model_copy(update={"sampling": p.sampling.model_copy(update={"batch_size": 1})})
    for name in draw(pipeline, home, alone, home / "one-by-one"):
        one, together = (np.asarray(Image.open(f / name), int) for f in (home / "one-by-one", evaluated / "images"))
        assert abs(one - together).max() <= 1


def test_after_kill_9_the_same_command_trains_and_draws_only_what_is_missing(evaluated: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows")
    (tmp_path / "params.yaml").write_bytes((evaluated.parent / "params.yaml").read_bytes())
    command = [sys.executable, "-c", RUN, "eval", "--encoder", "mini", "--in", "rows", "--out", "out"]
    command += ["--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    process = start()
    while not records(tmp_path):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = records(tmp_path)
    assert len(first) < 3 * 2

    process = start()
    printed, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert "LoRA" not in complaints
    assert first.items() <= records(tmp_path).items()
    names = ("metrics.json", "intervals.json", "scores.jsonl", "sheet.png")
    assert [n for n in names if (tmp_path / "out" / n).read_bytes() != (evaluated / n).read_bytes()] == []
    assert "  DreamBooth LoRA, 1 steps: " in printed
    line = next(line for line in printed.splitlines() if line.startswith("  Textual Inversion: "))
    assert "right scene" in line
    assert line.endswith(" KB per object")


def test_an_object_without_a_class_is_named_before_anything_is_trained() -> None:
    nothing = Image.new("RGBA", (4, 4))
    nouns = ["apple", None]
    subjects = [protocol.EvalSubject(f"thing-{i}", nothing, nothing, (), noun) for i, noun in enumerate(nouns)]
    with pytest.raises(TamingError, match=r"The object thing-1 has no class, which the baseline dreambooth-lora needs"):
        added_conditions.require_classes(subjects, params(baselines=["textual-inversion", "dreambooth-lora"]))
    added_conditions.require_classes(subjects, params(baselines=["textual-inversion"]))
    added_conditions.require_classes([replace(s, class_name="apple") for s in subjects], params())


def test_photos_that_a_baseline_trains_on_are_compared_with_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path, views=3)
    rows = load_rows(tmp_path, "test")
    numbers = protocol.rows_of_identities(rows)["thing-1"]
    one, two = (protocol.eval_subject(rows, "thing-1", numbers, "removed", count) for count in (1, 2))
    assert (len(one.training_photos), len(one.photos)) == (1, 2)
    assert two.training_photos == (one.training_photos[0], one.photos[0])
    assert (two.photos, two.others) == (one.photos[1:], one.others[1:])
    views = {v.identity: v for v in protocol.identity_views(tmp_path, "test", baseline_photos=2)}
    assert views["thing-1"].others == two.others
    with pytest.raises(TamingError, match=r"thing-\d has 3 photos, and evaluate\.baseline_photos is 3"):
        protocol.eval_subjects(tmp_path, params(baseline_photos=3), "removed")


@pytest.mark.parametrize(("changes", "fault"), [
    ({"baselines": ["dreambooth", "dreambooth"]}, "must not list dreambooth twice"),
    ({"baselines": ["lora"]}, "class-noun"),
    ({"baselines": ["class-noun"], "baseline_photos": 2}, "baseline_photos must be 1"),
    ({"guidance": [3.5]}, "must not list 3.5 again"),
    ({"guidance": [1.5, 1.5]}, "must not list 1.5 again"),
    ({"control_objects": 0}, "guidance must be empty"),
])  # fmt: skip
def test_keys_without_effect_are_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        params(**changes)


@pytest.mark.parametrize(("precision", "offload"), [("fp16", False), ("bf16", True)])
def test_what_cannot_train_is_refused_at_once(home: Path, precision: Any, offload: bool) -> None:
    with pytest.raises(TamingError, match=r"cannot train the baselines of evaluate\.baselines"):
        evaluate("mini", home / "rows", home / "none", home / "params.yaml", "cuda", precision, offload)
