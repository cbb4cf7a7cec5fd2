"""The ablation: its cells, its table of made-up results, and all of its stages in smoke size."""

import csv
import json
import shlex
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from project_copy import run, smoke_run
from small_rows import write_rows
from typer.testing import CliRunner

from pipelines.ablation import attribute_captions
from pipelines.ablation.cell import guided, link, rows_of, seeded, write
from pipelines.ablation.cells import CELLS, OURS, PARAMS, Ablation, ScoreParams, load, merged, tree
from pipelines.ablation.results import DENOISING, IMAGES, Entry, Measure, cost, difference, entries, mean
from pipelines.ablation.score import Setting, interleaved, plain_changes, token_effects
from pipelines.ablation.table import OBJECTS, SEEDS, as_csv, as_markdown, chosen, points, reference_scale, sheet
from stages.cli import app
from taming_core.errors import TamingError
from taming_core.model.subject_model import subject_model
from taming_core.params.load import Params, load_params
from taming_core.tables.parquet import read_rows
from taming_core.tables.rows import load_rows

ROOT = Path(__file__).parents[2]
ABLATION = load(CELLS)
REFERENCE = load_params(PARAMS)
LEFT_BEHIND = ("data/", "docs/", "pipelines/ablation/dvc.lock")  # the smoke size has its own
LIKENESS, RECOGNISED = (next(m for m in IMAGES if m.key == key) for key in ("judge_cosine", "judge_top1"))
ASKED = (("scene", "on the beach"), ("scene", "in outer space"), ("style", "a pencil sketch of"))


def params_of(cell: str) -> Params:
    return Params.model_validate(merged(tree(PARAMS), ABLATION.cells[cell].overrides))


@pytest.mark.parametrize("cell", [c for c in ABLATION.cells if c != OURS])
def test_every_cell_is_valid_and_differs_from_the_reference_in_training_or_captions_alone(cell: str) -> None:
    p = params_of(cell)
    assert p != REFERENCE
    kept = {"attributes": REFERENCE.caption.attributes}
    same = {"train": REFERENCE.train, "caption": p.caption.model_copy(update=kept)}
    assert p.model_copy(update=same) == REFERENCE
    assert (p.train == REFERENCE.train) == (p.caption != REFERENCE.caption)


def test_all_cells_differ_and_all_are_run() -> None:
    params = [params_of(c).model_dump_json() for c in ABLATION.cells]
    assert len(set(params)) == len(params)
    assert set(ABLATION.run) == set(ABLATION.cells)
    assert params_of(OURS) == REFERENCE


def test_every_network_design_is_a_cell() -> None:
    assert {params_of(c).train.injection for c in ABLATION.cells} == {
        "substitute", "concat", "decoupled", "gated", "reference",
    }  # fmt: skip


def test_an_override_that_would_change_nothing_is_an_error() -> None:
    with pytest.raises(TamingError, match=r"sets train\.steps to 9, as the reference has it"):
        merged({"train": {"steps": 9}}, {"train.steps": 9})
    with pytest.raises(TamingError, match=r"names train\.stepz, which the reference's params lack"):
        merged({"train": {"steps": 9}}, {"train.stepz": 9})


def test_each_regularizer_is_a_cell_alone_and_without_the_other() -> None:
    """Of (text-image pairs, object dropping, drawn by the base): all, none, and each."""
    found = {
        c: (p.regularization > 0, p.object_drop > 0, p.prior is not None)
        for c in ABLATION.cells
        if ABLATION.cells[c].family in ("ours", "regularizer") and (p := params_of(c).train)
    }
    expected = {"ours": (True, True, False), "no_regularization": (False, False, False), "prior": (True, True, True),
                "dropping_alone": (False, True, False), "pairs_alone": (True, False, False)}  # fmt: skip
    assert {c: found[c] for c in expected} == expected


def test_a_cell_is_trained_on_the_rows_that_its_params_need(tmp_path: Path) -> None:
    rows = {cell: rows_of(merged(tree(PARAMS), ABLATION.cells[cell].overrides)) for cell in ABLATION.cells}
    assert {cell for cell, name in rows.items() if name == "object-rows"} == {"prior"}
    assert {cell for cell, name in rows.items() if name == "attribute-rows"} == {"attribute_words"}
    assert {cell for cell, name in rows.items() if name == "two-object-rows"} == {"two_objects"}
    assert set(rows.values()) == {"rows", "object-rows", "attribute-rows", "two-object-rows"}
    tiny.write_rows(tmp_path / "rows")
    for _ in range(2):
        link(tmp_path / "rows", tmp_path / "cell/rows")
    names = [path.name for path in sorted((tmp_path / "rows").iterdir())]
    assert [path.name for path in sorted((tmp_path / "cell/rows").iterdir())] == names
    assert all((tmp_path / "rows" / n).samefile(tmp_path / "cell/rows" / n) for n in names)


def test_colours_become_words_of_the_true_captions(tmp_path: Path) -> None:
    """Those that a caption states, surely; and each choice of the classifier has its reason."""
    params = yaml.safe_load(PARAMS.read_text())
    params["world"] |= {"recolor": 1.0, "two_objects": 0.5}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    paths = ["--params", str(tmp_path / "params.yaml"), "--truth", str(tmp_path / "photos")]
    command = ["world", "--split", "train", "--photos", "8", *paths, "--out", str(tmp_path / "photos/raw")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    attribute_captions.main(tmp_path / "attributes.parquet", tmp_path / "photos", device="cpu")
    before, after = (read_rows(tmp_path / name) for name in ("photos/captions.parquet", "attributes.parquet"))
    colours = next(iter(ABLATION.cells["attribute_words"].overrides["caption.attributes"]["vocabulary"].values()))
    assert [r["drop_reason"] for r in before] == [r["drop_reason"] for r in after]
    stated = [n for n, r in enumerate(before) if r["replaced"] and r["replaced"].split()[0] in colours]
    assert stated
    for n in stated:
        colour, noun = before[n]["replaced"].split(" ", 1)
        assert (after[n]["caption"], after[n]["replaced"]) == (before[n]["caption"], noun)
        assert f" {colour} <object>" in after[n]["object_caption"]
        assert [a["decision"] for a in after[n]["attributes"]] == ["in the caption"]
    assert {a["group"] for r in after if not r["drop_reason"] for a in r["attributes"]} == {"colour"}


def test_a_params_file_is_written_whole_and_valid_or_not_at_all(tmp_path: Path) -> None:
    write(guided(tree(PARAMS), 6.0), tmp_path / "guidance-6.0.yaml")
    assert load_params(tmp_path / "guidance-6.0.yaml").evaluate.sampling.guidance_object == 6
    with pytest.raises(TamingError, match="encoder must be set"):
        write(merged(tree(PARAMS), {"train.injection": "reference"}), tmp_path / "bad.yaml")
    assert not (tmp_path / "bad.yaml").exists()


def test_the_difference_to_the_reference_is_paired_by_subject() -> None:
    """Subjects that differ much leave a small but steady difference sure."""
    ours = {(0, f"thing-{i}", "a"): float(i) for i in range(8)}
    found = difference({s: v + 0.1 + 0.01 * (v % 2) for s, v in ours.items()}, ours, LIKENESS)
    assert 0.1 < found.low < found.mean < found.high < 0.111
    assert mean(ours, LIKENESS).high - mean(ours, LIKENESS).low > 2
    with pytest.raises(TamingError, match="different objects, prompts or seeds"):
        difference({(0, "thing-9", "a"): 1.0}, ours, LIKENESS)
    with pytest.raises(TamingError, match="different objects, prompts or seeds"):
        difference({(1, *sample): v for (_, *sample), v in ours.items()}, ours, LIKENESS)


def of_trainings(effects: list[float], m: Measure) -> bool:
    """Whether a difference is sure that is of these sizes in trainings with other seeds, of 16 objects each."""
    rng = np.random.default_rng(0)
    ours = {(s, f"thing-{i}", "a"): rng.normal(0, 0.2) for s in range(len(effects)) for i in range(16)}
    cell = {(s, i, a): v + effects[s] + rng.normal(0, 0.05) for (s, i, a), v in ours.items()}
    found = difference(cell, ours, m)
    return found.low > 0 or found.high < 0


def test_a_difference_that_not_all_trainings_show_is_not_sure() -> None:
    """The intervals were over objects alone, so that one training with a lucky seed was sure."""
    assert of_trainings([0.1], LIKENESS)
    assert not of_trainings([0.1, -0.06, 0.02], LIKENESS)
    assert of_trainings([0.1, 0.09, 0.11], LIKENESS)


def test_shares_and_their_differences_are_uncertain_where_all_are_alike() -> None:
    all_right = {(s, f"thing-{i}", "a"): 1.0 for s in range(3) for i in range(4)}
    assert mean(all_right, RECOGNISED).low < 0.5
    found = difference(all_right, all_right, RECOGNISED)
    assert found.low < -0.2 < 0 < 0.2 < found.high


def made_up(folder: Path, told: Ablation, things: int) -> Path:
    """What all stages before the table leave, with numbers that depend on the cell: the later, the less alike."""
    write_rows(folder / "unseen-rows", things)
    for place, cell in enumerate(told.run):
        for seed, scale in product(told.seeds, told.scales):
            _evaluation(folder / "evaluations" / cell / str(seed) / str(scale), things, place, scale, seed)
        rng = np.random.default_rng(7)  # of all cells the same
        use = [
            {"subject": f"thing-{i % things}", "row": f"{i}", "against_none": 0.3 - 0.01 * place + rng.normal(0, 0.1),
             "against_another": 0.2 - 0.01 * place + rng.normal(0, 0.1)}
            for i in range(2 * things)
        ]  # fmt: skip
        plain = [{"subject": f"{i}", "row": f"{i}", "plain_change": rng.normal(0.02, 0.01)} for i in range(9)]
        trained = {"object_encoder": 1_000_000, "denoiser": 500_000 * place}
        for seed in map(str, told.seeds):
            _json(folder / "measures" / cell / f"{seed}.json", {"use": use, "plain": plain})
            _json(folder / "encoders" / cell / seed / "training.json",
                  {"params": {"batch_size": 16}, "run": f"train-{cell}", "trained": trained})  # fmt: skip
    return folder


def _evaluation(folder: Path, things: int, place: int, scale: float, seed: int) -> None:
    rows = [_verdict(i, n, *asked, place, scale, seed) for i in range(things) for n, asked in enumerate(ASKED)]
    rows.append({"condition": "real_photos", "identity": "thing-0", "kind": "photo", "judge_cosine": 1.0})
    (folder / "images").mkdir(parents=True)
    for row in (r for r in rows if "image" in r):
        shade = (40 * place % 256, 20 * len(row["image"]) % 256, 200)
        Image.new("RGB", (16, 16), shade).save(folder / "images" / row["image"])
    (folder / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def _verdict(i: int, n: int, kind: str, asked: str, place: int, scale: float, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng([i, n, seed])  # of all cells the same
    said = {"condition": "ours", "identity": f"thing-{i}", "kind": kind, "asked": asked, "seed": 3 * i + n,
            "prompt": f"a photo of a <object> {asked}", "image": f"ours-{i:03d}-{n}.png"}  # fmt: skip
    right = float(rng.random() < 0.9 - 0.08 * scale - 0.01 * place)
    if kind == "style":
        return {**said, "style_accuracy": right}
    alike = 0.4 + 0.05 * scale - 0.01 * place + rng.normal(0, 0.2)
    said["diversity"] = 0.4 + 0.01 * rng.normal()
    return {**said, "scene_accuracy": right, "judge_cosine": alike, "judge_top1": float(alike > 0.6), "shape": alike}


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("ablation"), ABLATION, 6)


@pytest.fixture(scope="module")
def found(results: Path) -> list[Entry]:
    return entries(ABLATION, results)


def test_every_measure_of_every_cell_is_there_at_every_guidance(found: list[Entry]) -> None:
    drawn = {(e.cell, e.scale) for e in found if e.measure.key == "judge_cosine"}
    assert drawn == {(c, s) for c in ABLATION.run for s in ABLATION.scales}
    undrawn = {(e.cell, e.measure.key) for e in found if e.scale is None}
    assert undrawn == {(c, m.key) for c in ABLATION.run for m in DENOISING}
    assert {e.measure.key for e in found if e.scale} == {m.key for m in IMAGES} - {"strict_pass"}  # no strict judge
    assert all((e.difference is None) == (e.cell == OURS) for e in found)
    counts = {e.value.count for e in found if e.measure.key == "judge_cosine"}
    assert counts == {len(ABLATION.seeds) * 6 * 2}  # of every training


def test_a_steady_difference_is_bold_though_the_intervals_overlap(results: Path, found: list[Entry]) -> None:
    costs = {c: cost([results / "encoders" / c / "0"], results / "runs") for c in ABLATION.run}
    text = as_markdown(found, costs, ABLATION, REFERENCE, 3.5)
    lines = [line for line in text.splitlines() if line.startswith("| gated |")]
    choice, drawn, differences = lines[:3]
    assert "| 2.50 M | – |" in choice  # the record of the run is gone
    low, high = next((e.value.low, e.value.high) for e in found if (e.cell, e.scale) == ("gated", 3.5))
    assert f"({low:.2f} to {high:.2f})" in drawn
    assert high - low > 0.1
    assert "| **−0.03** (−0.03 to −0.03) |" in differences
    assert text.count("| gated |") == 5


def test_the_table_says_what_it_cannot_tell(results: Path, found: list[Entry]) -> None:
    costs = {c: cost([results / "encoders" / c / "0"], results / "runs") for c in ABLATION.run}

    def text(seeds: list[int], objects: int) -> str:
        p = REFERENCE.model_copy(update={"evaluate": REFERENCE.evaluate.model_copy(update={"objects": objects})})
        return as_markdown(found, costs, ABLATION.model_copy(update={"seeds": seeds}), p, 3.5)

    assert (len(ABLATION.seeds), REFERENCE.evaluate.objects) >= (SEEDS, OBJECTS)
    assert "cannot tell" not in text(ABLATION.seeds, REFERENCE.evaluate.objects)
    assert "With 1 training per cell the table cannot tell a choice from the seed" in text([0], OBJECTS)
    assert "With 8 objects it can tell large differences between images only" in text(ABLATION.seeds, 8)


def test_a_training_has_the_params_of_its_cell_and_a_seed_of_its_own() -> None:
    assert {seeded(tree(PARAMS), s)["train"]["seed"] for s in ABLATION.seeds} == set(ABLATION.seeds)
    assert Params.model_validate(seeded(tree(PARAMS), REFERENCE.train.seed)) == REFERENCE


def test_the_csv_holds_every_number_once(results: Path, found: list[Entry]) -> None:
    costs = {c: cost([results / "encoders" / c / "0"], results / "runs") for c in ABLATION.run}
    rows = list(csv.DictReader(StringIO(as_csv(found, costs, ABLATION))))
    keys = [(r["cell"], r["guidance"], r["measure"]) for r in rows]
    assert len(set(keys)) == len(keys) == len(found) + 2 * len(ABLATION.run)
    one = next(r for r in rows if (r["cell"], r["guidance"], r["measure"]) == ("decoupled", "3.5", "judge_cosine"))
    assert float(one["difference"]) == pytest.approx(-0.02)
    assert one["sure"] == "1"


def test_seconds_are_of_the_steps_alone(tmp_path: Path) -> None:
    _json(tmp_path / "training.json", {"params": {"batch_size": 8}, "run": "train-x", "trained": {"a": 2, "b": 3}})
    log = tmp_path / "runs" / "train-x" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"step": 1, "images_per_second": 4.0}\n{"step": 2, "images_per_second": 8.0}\n')
    found = cost([tmp_path] * 2, tmp_path / "runs")
    assert (found.trained, found.seconds) == (5, 3.0)


def test_the_curves_have_a_point_for_each_cell_and_guidance(results: Path) -> None:
    found = points(ABLATION, results)
    assert [(p.cell, p.scale) for p in found] == [(c, s) for c in ABLATION.run for s in (1.5, 3.5, 6.0)]
    ours = [p for p in found if p.cell == OURS]
    assert ours[0].fidelity.mean < ours[1].fidelity.mean < ours[2].fidelity.mean
    assert ours[0].text.count == 6 * len(ASKED) * len(ABLATION.seeds)


def test_the_sheet_has_the_same_objects_and_prompts_in_every_row(results: Path) -> None:
    shown = chosen([_verdict(i, n, *ASKED[n], 0, 3.5) for i in range(6) for n in range(3)], ABLATION)
    assert [(r["identity"], r["asked"]) for r in shown[:3]] == [
        ("thing-0", "on the beach"), ("thing-0", "in outer space"), ("thing-1", "on the beach"),
    ]  # fmt: skip
    picture = sheet(ABLATION, results, 3.5)
    assert picture.height > 112 * (len(ABLATION.run) + 1)


def test_the_table_must_be_of_a_guidance_that_was_drawn() -> None:
    assert reference_scale(ABLATION, REFERENCE.evaluate) == 3.5
    with pytest.raises(TamingError, match="at which no cell is evaluated"):
        reference_scale(ABLATION.model_copy(update={"scales": [1.0]}), REFERENCE.evaluate)


def setting(folder: Path, injection: str, **more: Any) -> Setting:
    """A tiny pipeline that was not trained, its own base, and rows of two things in three views."""
    tiny.write_rows(folder / "rows")
    pipeline = tiny.pipeline(injection)
    pipeline.save_pretrained(folder / "base")
    fresh = {"start": None, "base": str(folder / "base"), "injection": injection, "background": "removed"}
    tower = {"tower": "mini", "projector": "full", "tokens": tiny.TOKENS, "tower_blocks": 0}
    p = ScoreParams(seed=0, timesteps=[100, 700], rows=6, pairs=3, **{"batch_size": 4, **more})
    params = tiny.train_params(**fresh, encoder=tower)
    return Setting(subject_model(pipeline.components), params, torch.device("cpu"), p)


def test_before_any_training_plain_text_to_image_is_the_base_models(tmp_path: Path) -> None:
    s = setting(tmp_path, "decoupled")
    found = plain_changes(s, load_rows(tmp_path / "rows", "train"))
    assert [v["plain_change"] for v in found] == pytest.approx([0, 0, 0], abs=1e-5)
    assert len({v["subject"] for v in found}) == 3
    with torch.no_grad():
        s.model.family.denoiser.conv_out.weight.mul_(1.5)
    changes = [v["plain_change"] for v in plain_changes(s, load_rows(tmp_path / "rows", "train"))]
    assert all(abs(c) > 1e-3 for c in changes)


def test_tokens_without_an_effect_measure_zero_and_others_do_not(tmp_path: Path) -> None:
    silent = setting(tmp_path / "a", "decoupled")  # its added values are zero before training
    found = token_effects(silent, load_rows(tmp_path / "a" / "rows", "train"))
    assert [v["against_none"] for v in found] == pytest.approx([0] * 6, abs=1e-6)
    heard = token_effects(setting(tmp_path / "b", "concat"), load_rows(tmp_path / "b" / "rows", "train"))
    assert all(v["against_none"] != 0 and v["against_another"] != 0 for v in heard)
    assert {v["subject"] for v in heard} == {"train-0", "train-1"}


def test_scores_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    one, many = (setting(tmp_path / str(n), "concat", batch_size=n) for n in (1, 6))
    values = [
        [v["against_none"] for v in token_effects(s, load_rows(tmp_path / "1" / "rows", "train"))] for s in (one, many)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_identities_are_interleaved_so_that_a_donor_is_another_one(tmp_path: Path) -> None:
    rows = load_rows(tiny.write_rows(tmp_path), "train")
    identities = [rows.column("identity")[i] for i in interleaved(rows)]
    assert identities == ["train-0", "train-1"] * 3
    with pytest.raises(TamingError, match="fewer than two identities"):
        interleaved(load_rows(tiny.write_rows(tmp_path / "alone", identities=1), "train"))


def test_the_smoke_size_overrides_keys_that_exist() -> None:
    for size in ("smoke", "full"):
        for override in shlex.split((CELLS.parent / f"{size}.args").read_text(), comments=True)[1::2]:
            file, (key, value) = override.split(":")[0], override.split(":")[1].split("=")
            merged(tree(ROOT / file), {key: yaml.safe_load(value)})


@pytest.mark.parametrize("size", ["smoke", "full"])
def test_every_cell_is_valid_and_a_change_in_the_other_sizes_too(size: str) -> None:
    reference = tree(PARAMS)
    for override in shlex.split((CELLS.parent / f"{size}.args").read_text(), comments=True)[1::2]:
        file, (key, value) = override.split(":")[0], override.split(":")[1].split("=")
        reference = merged(reference, {key: yaml.safe_load(value)}) if file.endswith("params.yaml") else reference
    for cell in ABLATION.cells.values():
        Params.model_validate(merged(reference, cell.overrides))


@pytest.fixture(scope="module", params=["photos", pytest.param("table", marks=pytest.mark.slow)])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after the chain with the overrides of smoke.args, by DVC up to the stage `param`."""
    folder = tmp_path_factory.mktemp("smoke") / "taming"
    return smoke_run(folder, LEFT_BEHIND, "pipelines/ablation/dvc.yaml", "table", by_dvc=request.param)


@pytest.mark.timeout(600)
def test_the_whole_runs_in_smoke_size_and_needs_no_base_of_its_own(copy: Path) -> None:
    lock = yaml.safe_load((copy / "pipelines/ablation/dvc.lock").read_text())["stages"]
    stages = yaml.safe_load((copy / "pipelines/ablation/dvc.yaml").read_text())["stages"]
    assert {name.split("@")[0] for name in lock} == set(stages) - {"base"}
    assert {name for name in lock if name.startswith("train@")} == {"train@ours-0", "train@lora-0"}


def test_the_smoke_table_is_of_what_was_trained(copy: Path) -> None:
    rows = list(csv.DictReader(StringIO((copy / "out/ablation/table.csv").read_text())))
    measures = {m.key for m in (*IMAGES, *DENOISING)} - {"style_accuracy"}  # no style in the prompts
    for cell in ("ours", "lora"):
        assert {r["measure"] for r in rows if r["cell"] == cell} == measures | {"trained", "seconds"}
    trained = {r["cell"]: float(r["mean"]) for r in rows if r["measure"] == "trained"}
    assert trained["lora"] < 0.7 * trained["ours"]
    assert all(float(r["mean"]) > 0 for r in rows if r["measure"] == "seconds")
    for name in ("pareto.png", "sheet.png"):
        Image.open(copy / "out/ablation" / name).verify()


def test_editing_what_is_drawn_trains_nothing_again(copy: Path) -> None:
    params = copy / "pipelines/ablation/params.yaml"
    params.write_text(params.read_text().replace("images_per_prompt: 2", "images_per_prompt: 1"))
    run(["dvc", "repro", "-s", "pipelines/ablation/dvc.yaml:cell"], copy)
    said = run(["dvc", "status", "pipelines/ablation/dvc.yaml"], copy)
    assert "evaluate@ours-0-3.5" in said
    assert "train@" not in said
