"""`taming eval` on the shipped models: what is drawn, what is scored, what is left behind, and after a crash."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from small_rows import artwork, composed, row, write_rows
from transformers import CLIPImageProcessor

from stages.evaluate import evaluate
from taming_core.errors import TamingError
from taming_core.evaluation import drawing, protocol
from taming_core.images.draw import draw_missing
from taming_core.images.families import load_pipeline
from taming_core.model.towers import load_tower
from taming_core.params import arguments
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import EvaluateParams
from taming_core.tables import schema
from taming_core.tables.rows import load_rows
from taming_core.weights.mini import PIPELINE

ROOT = Path(__file__).parents[2]
RUN = "from stages.cli import main; main()"
SCORES = {"dino": "mini", "clip_l14": "mini", "quality": "cmmd"}
SCENES, STYLES = ["on the beach", "in the snow"], ["a black and white photo of"]


def params(**changes: Any) -> EvaluateParams:
    small = {"scenes": SCENES, "styles": STYLES, "objects": 2, "control_objects": 1, "scores": SCORES}
    p = load_params(packaged_params()).evaluate.model_dump()
    p["sampling"] |= {"steps": 2, "batch_size": 2}
    return EvaluateParams.model_validate({**p, **small, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of three held-out things and one seen one, and params, as a user's project."""
    home = tmp_path_factory.mktemp("project")
    write_rows(home / "rows", held_out=3, seen=1)
    everything = yaml.safe_load(packaged_params().read_text())
    (home / "params.yaml").write_text(yaml.safe_dump({**everything, "evaluate": params().model_dump()}))
    return home


def things_of(count: int) -> list[protocol.EvalSubject]:
    nothing = Image.new("RGBA", (4, 4))
    return [protocol.EvalSubject(f"thing-{i}", nothing, nothing, (), "apple") for i in range(count)]


def start(home: Path, out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "eval", "--encoder", "mini", "--in", str(home / "rows"), "--out", out]
    command += ["--params", str(home / "params.yaml"), "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, cwd=home, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> tuple[Path, str]:
    """The output of an undisturbed run, and what it printed."""
    process = start(folder, "whole")
    printed, complaints = process.communicate()
    assert process.returncode == 0, complaints
    return folder / "whole", printed


def test_the_plan_holds_every_image_and_its_controls() -> None:
    wants = protocol.plan_images(things_of(2), params(images_per_prompt=2), "object_token")
    ours = [w for w in wants if w.condition == "ours"]
    assert len(ours) == 2 * (2 + 1) * 2
    assert len({w.request.seed for w in ours}) == len(ours)
    assert {w.request.prompt for w in ours} == {
        "a photo of a <object> on the beach", "a photo of a <object> in the snow",
        "a black and white photo of a <object>",
    }  # fmt: skip
    beside = {(w.subject, w.asked, w.number): w.request for w in ours}
    controls = [w for w in wants if w.condition != "ours"]
    assert [w.condition for w in controls] == ["another_object"] * 4 + ["no_object"] * 4
    for w in controls:
        shown = {"another_object": (1,), "no_object": ()}[w.condition]
        assert w.request == replace(beside[w.subject, w.asked, w.number], objects=shown)


def test_whole_prompts_are_drawn_beside_scenes_and_styles() -> None:
    texts = [("attribute", "a photo of a red <object>"), ("style", "a drawing of a <object>")]
    prompts = [{"kind": kind, "text": text} for kind, text in texts]
    beside, alone = (
        protocol.plan_images(things_of(2), params(prompts=prompts, **without), captions)
        for without, captions in (({}, "class_noun"), ({"scenes": [], "styles": []}, "object_token"))
    )
    assert [(w.kind, w.asked, w.request.prompt) for w in beside if w.subject == 0 and w.condition == "ours"][3:] == [
        ("attribute", texts[0][1], "a photo of a red apple"), ("style", texts[1][1], "a drawing of an apple"),
    ]  # fmt: skip
    assert [w.request.prompt for w in alone] == [*([text for _, text in texts] * 2), texts[0][1], texts[0][1]]
    assert [w.condition for w in alone] == ["ours"] * 4 + ["another_object", "no_object"]  # of the attribute


def test_a_prompt_for_two_takes_the_object_and_the_next_one() -> None:
    two = {"prompts": [{"kind": "scene", "text": "a <object> and a <object> in the snow"}], "scenes": [], "styles": []}
    things = [replace(t, class_name=noun) for t, noun in zip(things_of(3), ("cup", "apple", "dog"), strict=True)]
    planned = protocol.plan_images(things, params(objects=3, **two), "class_noun")
    assert [(w.condition, w.subjects, w.request.objects, w.request.prompt) for w in planned] == [
        ("ours", (0, 1), (0, 1), "a cup and an apple in the snow"),
        ("ours", (1, 2), (1, 2), "an apple and a dog in the snow"),
        ("ours", (2, 0), (2, 0), "a dog and a cup in the snow"),
        ("no_object", (0, 1), (), "a cup and an apple in the snow"),
    ]


def test_prompts_of_a_group_are_for_its_objects_and_move_no_seed() -> None:
    texts = {"live": "a <object> asleep", "object": "a <object> on a shelf", None: "a <object>"}
    prompts = [{"kind": "action", "text": text, "group": group} for group, text in texts.items()]
    things = [replace(t, class_name=noun) for t, noun in zip(things_of(2), ("dog", "cup"), strict=True)]
    of_all, of_groups = (
        [w for w in protocol.plan_images(things, params(scenes=[], styles=[], prompts=p), "object_token")
         if w.condition == "ours"]
        for p in ([{**q, "group": None} for q in prompts], prompts)
    )  # fmt: skip
    assert [(w.subject, w.asked) for w in of_groups] == [
        (0, texts["live"]), (0, texts[None]), (1, texts["object"]), (1, texts[None])
    ]  # fmt: skip
    assert set(of_groups) < set(of_all)
    with pytest.raises(TamingError, match=r"thing-0 has no class, which the groups of evaluate\.prompts need"):
        protocol.plan_images([replace(things[0], class_name=None)], params(prompts=prompts), "object_token")


def test_named_subjects_are_taken_in_their_order_and_a_missing_one_is_named(folder: Path) -> None:
    def named(*names: str) -> list[str]:
        p = params(subjects=list(names), objects=len(names))
        return [t.identity for t in protocol.eval_subjects(folder / "rows", p, "removed")]

    assert named("thing-2", "thing-0") == ["thing-2", "thing-0"]
    with pytest.raises(TamingError, match=r"test split of .*rows has no identity thing-9\. Materialize"):
        named("thing-1", "thing-9")
    with pytest.raises(TamingError, match=r"no identity thing-3 and 1 more of evaluate.subjects"):
        named("thing-3", "thing-9", "thing-1")


def test_seeds_do_not_change_with_what_is_judged_beside_them() -> None:
    few = protocol.plan_images(things_of(2), params(), "object_token")
    many = protocol.plan_images(things_of(5), params(control_objects=4), "object_token")
    orders = {(w.condition, w.subject, w.asked): w.request for w in many}
    assert all(orders[w.condition, w.subject, w.asked].seed == w.request.seed for w in few)


def test_every_image_has_a_file_of_its_own(folder: Path) -> None:
    things = protocol.eval_subjects(folder / "rows", params(), "removed")
    names = protocol.file_names(protocol.plan_images(things, params(images_per_prompt=2), "object_token"), things)
    assert len(set(names)) == len(names)
    assert names[0] == f"ours-000-{things[0].identity}-on-the-beach-0.png"


def test_files_stay_apart_whatever_identities_scenes_and_styles_are_called() -> None:
    things = [replace(t, identity=name) for t, name in zip(things_of(3), ["x" * 200, "樱桃" * 60, "a/b"], strict=True)]
    words = {"scenes": ["on a hill", "on a hill!", "on a hill", "在雪地里" * 20], "styles": ["on a hill", "z" * 200]}
    choices = {"scene_choices": [*words["scenes"], "at home"], "style_choices": [*words["styles"], "a photo of"]}
    images = protocol.plan_images(things, params(objects=3, **words, **choices), "object_token")
    names = protocol.file_names(images, things)
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_-]+\.png", name) and len(name) <= 100 for name in names)
    assert names == protocol.file_names(images, things)


def test_a_thing_is_its_first_view_and_the_other_photos(folder: Path) -> None:
    rows = load_rows(folder / "rows", "test")
    thing = protocol.eval_subject(rows, "thing-1", protocol.rows_of_identities(rows)["thing-1"], "removed")
    expected = next(rows[i] for i in range(len(rows)) if rows[i]["row_id"] == "thing-1-0")
    assert np.array_equal(np.asarray(thing.subject), np.asarray(Image.open(BytesIO(expected["subject"]))))
    assert thing.encoder_image == thing.subject
    assert [p.size for p in thing.photos] == [(128, 128)]
    assert thing.row_ids == ("thing-1-0", "thing-1-1")


def test_an_encoder_that_knows_photos_is_shown_one_and_judged_by_the_cut_out(folder: Path) -> None:
    rows = load_rows(folder / "rows", "test")
    cut, kept = (
        protocol.eval_subject(rows, "thing-1", protocol.rows_of_identities(rows)["thing-1"], background)
        for background in ("removed", "kept")
    )
    assert kept.subject == cut.subject
    assert kept.encoder_image.size == cut.encoder_image.size
    assert np.asarray(kept.encoder_image)[..., 3].mean() > 240 > np.asarray(cut.encoder_image)[..., 3].mean()


def test_an_encoder_of_plain_captions_is_asked_in_plain_words() -> None:
    plain, tokens = (
        protocol.plan_images(things_of(2), params(), captions) for captions in ("class_noun", "object_token")
    )
    assert {w.request.prompt for w in plain} == {
        "a photo of an apple on the beach", "a photo of an apple in the snow", "a black and white photo of an apple",
    }  # fmt: skip
    assert [replace(w.request, prompt="") for w in plain] == [replace(w.request, prompt="") for w in tokens]
    nameless = [replace(thing, class_name=None) for thing in things_of(2)]
    protocol.plan_images(nameless, params(), "object_token")
    with pytest.raises(TamingError, match="needs each object's class"):
        protocol.plan_images(nameless, params(), "class_noun")


def test_things_with_other_photos_come_first_and_the_seed_draws(tmp_path: Path) -> None:
    rows = [row(t, f"thing-{i}", view, "test") for i, t in enumerate(artwork(6)) for view in range(1 + (i % 2))]
    for r in rows:
        r["references"] = [o["row_id"] for o in rows if o["identity"] == r["identity"] and o is not r]
    schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, tmp_path / "test-00000.parquet")
    drawn = [
        [t.identity for t in protocol.eval_subjects(tmp_path, params(seed=s, objects=4), "removed")] for s in range(6)
    ]
    assert all({"thing-1", "thing-3", "thing-5"} == set(names[:3]) for names in drawn)
    assert len({tuple(names) for names in drawn}) > 1


def test_one_held_out_thing_cannot_be_judged(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", held_out=1)
    values = yaml.safe_load(packaged_params().read_text())
    values["evaluate"]["judge"] = "facebook/dino-vits16"  # is not here, and not looked for
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(TamingError, match=r"1 identity.*materialize\.test"):
        evaluate("mini", tmp_path / "rows", tmp_path / "out", tmp_path / "params.yaml", "cpu")


def test_a_batch_is_drawn_as_a_whole_or_left_alone(folder: Path, tmp_path: Path) -> None:
    p, pipeline = params(), load_pipeline("mini")
    things = protocol.eval_subjects(folder / "rows", p, "removed")
    wants = protocol.plan_images(things, p, "object_token")[:4]
    paths = [tmp_path / name for name in protocol.file_names(wants, things)]
    embeds, _ = drawing.encode_subjects(pipeline, [t.encoder_image for t in things])
    sampling = p.sampling.model_copy(update={"steps": 1})
    assert list(draw_missing(pipeline, [w.request for w in wants], paths, embeds, sampling)) == [2, 4]
    before, times = [path.read_bytes() for path in paths], [path.stat().st_mtime_ns for path in paths]
    paths[3].unlink()
    list(draw_missing(pipeline, [w.request for w in wants], paths, embeds, sampling))
    assert [path.read_bytes() for path in paths] == before
    assert [path.stat().st_mtime_ns == t for path, t in zip(paths, times, strict=True)] == [True, True, False, False]


def test_the_scores_are_complete(evaluated: tuple[Path, str]) -> None:
    out, _ = evaluated
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"ours", "another_object", "no_object", "real_photos"}
    assert set(metrics["ours"]) == {
        "judge_top1", "judge_top1_all", "judge_cosine", "judge_cosine_seen", "judge_cosine_other", "copying",
        "strict_top1", "strict_pass", "strict_cosine", "strict_cosine_seen", "shape", "shape_iou", "shape_edges",
        "shape_found", "shape_flipped", "scene_accuracy", "style_accuracy", "style_judge_top1", "diversity",
        "other_photos", "copy_score", "background_leakage", "dino", "dino_seen", "dino_masked", "clip_i_l14",
        "clip_i_l14_seen", "clip_i_l14_masked", "clip_t_l14", "clip_t_l14_masked", "cmmd",
    }  # fmt: skip
    assert "donor_top1" in metrics["another_object"]
    assert metrics["ours"]["other_photos"] == 1
    assert metrics["real_photos"]["other_photos"] == 0  # the only other photo of each is compared with the seen one
    assert "scene_accuracy" not in metrics["real_photos"]
    intervals = json.loads((out / "intervals.json").read_text())
    for condition, found in metrics.items():
        for key, mean in found.items():
            assert intervals[condition][key]["low"] <= mean <= intervals[condition][key]["high"]


def test_the_judge_knows_real_photos_and_is_not_fooled_without_tokens(evaluated: tuple[Path, str]) -> None:
    metrics = json.loads((evaluated[0] / "metrics.json").read_text())
    assert metrics["real_photos"]["judge_top1"] == 1
    assert metrics["real_photos"]["judge_cosine"] > metrics["no_object"]["judge_cosine"] + 0.3
    assert metrics["real_photos"]["shape"] > metrics["no_object"]["shape"]
    assert metrics["ours"]["judge_cosine"] > metrics["no_object"]["judge_cosine"]
    assert metrics["real_photos"]["strict_cosine"] > metrics["no_object"]["strict_cosine"] + 0.3


def test_there_is_a_line_for_every_image_and_its_file(evaluated: tuple[Path, str]) -> None:
    out, _ = evaluated
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [r["condition"] for r in rows] == ["ours"] * 6 + ["another_object"] * 2 + ["no_object"] * 2 + [
        "real_photos"
    ] * 2
    drawn = [r for r in rows if r["condition"] != "real_photos"]
    assert sorted(r["image"] for r in drawn) == sorted(p.name for p in (out / "images").iterdir())
    scene = next(r for r in rows if r["kind"] == "scene")
    assert {"identity", "prompt", "seed", "judge_top1", "cosine", "shape", "scene_accuracy", "chosen"} <= set(scene)
    assert {r["condition"]: r["other_photos"] for r in rows} == {
        "ours": 1, "another_object": 1, "no_object": 1, "real_photos": 0,
    }  # fmt: skip
    assert {"strict_top1", "strict_pass", "strict_cosine", "class", "difficulty"} <= set(scene)
    assert not {"shape", "judge_top1", "strict_top1"} & set(next(r for r in rows if r["kind"] == "style"))


def test_dvc_can_plot_the_csv_files(evaluated: tuple[Path, str]) -> None:
    def table(name: str) -> list[dict[str, str]]:
        with (evaluated[0] / "plots" / name).open() as file:
            return list(csv.DictReader(file))

    metrics = json.loads((evaluated[0] / "metrics.json").read_text())
    fidelity = {(r["condition"], r["measure"]): float(r["score"]) for r in table("fidelity.csv")}
    assert fidelity == {(c, key): value for c, of in metrics.items() for key, value in of.items()}
    assert [r["asked"] for r in table("scenes.csv")] == SCENES * 2
    assert [r["asked"] for r in table("styles.csv")] == STYLES * 2
    assert len(table("per_object.csv")) == 2
    strata = json.loads((evaluated[0] / "strata.json").read_text())
    assert list(strata) == ["prompt kind"]  # of one class, and too few objects for levels of difficulty
    assert [(r["stratum"], r["value"]) for r in table("strata.csv")] == [("prompt kind", k) for k in ("scene", "style")]
    assert strata["prompt kind"]["scene"]["ours"]["judge_cosine"]["count"] == 4


def test_timings_stand_apart_and_metrics_hold_none(evaluated: tuple[Path, str]) -> None:
    timings = json.loads((evaluated[0] / "timings.json").read_text())
    assert timings["bytes_per_object"] == 256 * 256 * 4
    assert timings["seconds_per_object"] > 0
    assert timings["seconds_per_image"] > 0
    assert "seconds" not in (evaluated[0] / "metrics.json").read_text()


def test_the_protocol_is_written_down(evaluated: tuple[Path, str]) -> None:
    out, printed = evaluated
    record = json.loads((out / "protocol.json").read_text())
    assert (record["name"], record["encoder"]["name"], record["encoder"]["precision"]) == (None, "mini", "fp32")
    assert [s["rows"] for s in record["measured"]["subjects"]] == [
        [f"{s['identity']}-{view}" for view in (0, 1)] for s in record["measured"]["subjects"]
    ]
    assert [q["text"] for q in record["measured"]["prompts"]] == [
        "a photo of a <object> on the beach", "a photo of a <object> in the snow",
        "a black and white photo of a <object>",
    ]  # fmt: skip
    assert f"\nprotocol of the params, fingerprint {record['fingerprint']}\n" in printed
    assert record["fingerprint"] in (out / "report.html").read_text()
    assert str(out.parent) not in (out / "protocol.json").read_text()


@pytest.mark.filterwarnings("error:No artists")
def test_an_evaluation_of_styles_alone_is_written_whole(folder: Path, tmp_path: Path) -> None:
    p = params(scenes=[]).model_dump(mode="json")
    p["sampling"]["steps"] = 1
    settings = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**settings, "evaluate": p}), encoding="utf-8")
    evaluate("mini", folder / "rows", tmp_path / "out", tmp_path / "params.yaml", "cpu")
    ours = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))["ours"]
    assert "style_accuracy" in ours
    assert "judge_top1" not in ours
    assert "The style is the requested one in" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_a_protocol_of_whole_prompts_and_pairs_is_drawn_scored_and_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [
        {"kind": "scene", "text": "a photo of a <object> and a <object> on the beach"},
        {"kind": "attribute", "text": "a photo of a large <object>", "group": "object"},
        {"kind": "style", "text": "a pencil sketch of a <object>"},
    ]
    p = params(scenes=[], styles=[], scene_choices=[], style_choices=[], prompts=prompts).model_dump(mode="json")
    p["sampling"]["steps"] = 1
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump({"name": "pairs", "version": 3, **p}))
    for split, numbers in (("test", (0, 1, 2)), ("train", (3,))):
        rows = [{**row(artwork(4)[i], f"thing-{i}", view, split), "class": "cup"} for i in numbers for view in (0, 1)]
        schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, tmp_path / "rows" / f"{split}-00000.parquet")
    monkeypatch.chdir(tmp_path)
    evaluate("mini", Path("rows"), Path("out"), folder / "params.yaml", "cpu", protocol_file="pairs.yaml")
    scores = [json.loads(line) for line in Path("out/scores.jsonl").read_text(encoding="utf-8").splitlines()]
    pair = [r for r in scores if r["condition"] == "ours" and r["kind"] == "scene"]
    assert [(r["identity"], r["beside"]) for r in pair] == [(a, b) for r in pair[::2] for a, b in (
        (r["identity"], r["beside"]), (r["beside"], r["identity"]))]  # fmt: skip
    assert {r["shown"] for r in pair} == {f"{r['identity']} and {r['beside']}" for r in pair[::2]}
    assert ["both_found" in r for r in pair] == [True, False] * 2
    assert len({r["image"] for r in pair}) == 2
    assert not any("chosen" in r for r in scores)
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    assert {"both_found", "judge_top1", "shape", "style_judge_top1"} <= set(metrics["ours"])
    assert not {"scene_accuracy", "style_accuracy"} & set(metrics["ours"])
    assert "both_found" in metrics["no_object"]
    assert "both_found" not in metrics["another_object"]
    assert json.loads(Path("out/protocol.json").read_text(encoding="utf-8"))["version"] == 3


def test_the_end_names_the_report_and_the_state_is_gone(evaluated: tuple[Path, str], folder: Path) -> None:
    out, printed = evaluated
    assert printed.startswith("whole: 10 images of 2 held-out objects\n")
    assert "whole/report.html and whole/sheet.png show them" in printed
    assert (out / "report.html").is_file()
    assert Image.open(out / "sheet.png").width > 4 * 128
    assert not list((folder / "runs").iterdir())


def test_the_tower_of_the_encoder_is_refused_as_a_judge_before_anything_is_drawn(folder: Path, tmp_path: Path) -> None:
    tower = load_tower(str(PIPELINE / "object_encoder"))[0]
    tower.save_pretrained(tmp_path / "other-name")
    CLIPImageProcessor(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128}).save_pretrained(
        tmp_path / "other-name"
    )
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    settings["evaluate"]["strict_judge"] = str(tmp_path / "other-name")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(
        TamingError, match=r"evaluate\.strict_judge is .*, which has the weights of this encoder's tower"
    ):
        evaluate("mini", folder / "rows", tmp_path / "out", tmp_path / "params.yaml", "cpu")
    assert not (tmp_path / "out").exists()


def test_after_kill_9_the_same_command_ends_with_the_same_bytes(evaluated: tuple[Path, str], folder: Path) -> None:
    process = start(folder, "again")
    while not list(folder.glob("runs/evaluate-*/*.png")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = {p.name: p.stat().st_mtime_ns for p in folder.glob("runs/evaluate-*/*.png")}
    assert 0 < len(first) < 10
    assert not (folder / "again").exists()

    process = start(folder, "again")
    _, complaints = process.communicate()
    assert process.returncode == 0, complaints
    whole, again = (
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file() and p.name != "timings.json"}
        for f in (evaluated[0], folder / "again")
    )
    assert again.keys() == whole.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("/images\n")  # as dvc leaves it
    (tmp_path / "metrics.json").write_text("{}")
    arguments.require_evaluation_out(tmp_path)
    arguments.require_evaluation_out(tmp_path / "absent")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(TamingError, match="--out"):
        arguments.require_evaluation_out(tmp_path)


def test_the_rows_are_real_pictures() -> None:
    """The fixture itself: a thing on a scene, with a mask that covers it."""
    photo, mask = composed(artwork(1)[0], 0)
    assert photo.shape == (128, 128, 3)
    assert 0.1 < mask.mean() < 0.6
