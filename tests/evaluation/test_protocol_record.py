"""protocol.json: equal for equal measurements, wherever files lie, and changed by whatever changes scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm
import torch
import yaml
from small_rows import artwork, row, write_rows

from taming_core.errors import TamingError
from taming_core.evaluation.comparison import Results, changes, require_same_protocol
from taming_core.evaluation.judges import Judges, load_judges
from taming_core.evaluation.protocol import eval_subjects
from taming_core.evaluation.protocol_record import encoder_record, protocol_record, title, vlm_record
from taming_core.evaluation.similarity import ScoreNetworks, load_networks
from taming_core.evaluation.vlm_judge import load_vlm_judge
from taming_core.params.load import load_params, packaged_params
from taming_core.params.protocols import Protocol, load_protocol, shipped
from taming_core.params.sections import EvaluateParams
from taming_core.tables import schema
from taming_core.weights.mini import MINI

SETTINGS = load_params(packaged_params())
ENCODER = encoder_record("mini", "0" * 16, None, "fp32")
NO_SCORES = ScoreNetworks({}, {})


def params(**changes: Any) -> EvaluateParams:
    p = SETTINGS.evaluate.model_dump()
    return EvaluateParams.model_validate({**p, "objects": 2, "control_objects": 1, **changes})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows", held_out=3, seen=1)


@pytest.fixture(scope="module")
def judges() -> Judges:
    return load_judges(params(), "cpu")


def record(rows: Path, judges: Judges, p: EvaluateParams | None = None, **detect: Any) -> dict[str, Any]:
    p, d = p or params(), SETTINGS.detect.model_copy(update=detect)
    return protocol_record(p, d, eval_subjects(rows, p, "removed"), judges, NO_SCORES, None, rows, ENCODER, None)


def changed(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert (one["fingerprint"] == other["fingerprint"]) == (one["measured"] == other["measured"])
    return [key for key, _, _ in changes(one["measured"], other["measured"])]


SAMPLING = SETTINGS.evaluate.sampling.model_dump()
PROMPT = {"kind": "attribute", "text": "a photo of a red <object>"}
ONE_KEY = {
    "seed": ({"seed": 1, "subjects": ["thing-0", "thing-1"]}, ["seed"]),
    "scheduler": ({"sampling": {**SAMPLING, "scheduler": "DDIMScheduler"}}, ["sampling.scheduler"]),
    "steps": ({"sampling": {**SAMPLING, "steps": 50}}, ["sampling.steps"]),
    "guidance": ({"sampling": {**SAMPLING, "guidance_text": 7.5}}, ["sampling.guidance_text"]),
    "images": ({"images_per_prompt": 2}, ["images_per_prompt"]),
    "a prompt more": ({"prompts": [PROMPT]}, ["prompts.8"]),
    "another scene": ({"scenes": ["on the beach", *SETTINGS.evaluate.scenes[1:4], "in a room"]}, ["prompts.4.text"]),
    "choices": ({"scene_choices": [*SETTINGS.evaluate.scene_choices, "at home"]}, ["scene_choices.38"]),
    "batch size": ({"sampling": {**SAMPLING, "batch_size": 1}}, []),
    "controls": ({"control_objects": 2}, []),
    "baselines": ({"baselines": ["class-noun"]}, []),
    "pasted": ({"pasted": True}, []),
}


@pytest.mark.parametrize("name", ONE_KEY)
def test_what_changes_a_score_is_named_and_nothing_else(name: str, rows: Path, judges: Judges) -> None:
    values, expected = ONE_KEY[name]
    base = {"subjects": ["thing-0", "thing-1"]}
    assert changed(record(rows, judges, params(**base)), record(rows, judges, params(**base, **values)
                   if "subjects" not in values else params(**values))) == expected  # fmt: skip


def test_another_subject_and_another_order_are_named(rows: Path, judges: Judges) -> None:
    first, other, turned = (
        record(rows, judges, params(subjects=[f"thing-{i}" for i in n])) for n in ("01", "02", "10")
    )
    assert changed(first, other) == ["subjects.1.identity", "subjects.1.rows.0"]
    assert changed(first, turned) == ["subjects.0.identity", "subjects.0.rows.0"]
    assert first["measured"]["subjects"][1] == {
        "identity": "thing-1", "class": None, "rows": ["thing-1-0", "thing-1-1"],
    }  # fmt: skip


def test_another_photo_is_named_of_a_subject_and_of_the_gallery(rows: Path, judges: Judges, tmp_path: Path) -> None:
    def photos(folder: Path, views: dict[str, tuple[int, int]]) -> Path:
        for split, things in (("test", ("thing-0", "thing-1", "thing-2")), ("train", ("thing-3",))):
            named = [(t, view, views.get(t, (0, 1))) for t in things for view in views.get(t, (0, 1))]
            of = [{**row(artwork(4)[int(t[-1])], t, view, split), "references": [f"{t}-{v}" for v in pair if v != view]}
                  for t, view, pair in named]  # fmt: skip
            schema.write([schema.table(of, schema.ROWS)], schema.ROWS, folder / f"{split}-00000.parquet")
        return folder

    p = params(subjects=["thing-0", "thing-1"])
    same, subject, gallery, training = (
        record(photos(tmp_path / str(n), views), judges, p)
        for n, views in enumerate(({}, {"thing-1": (0, 2)}, {"thing-2": (0, 2)}, {"thing-3": (1, 2)}))
    )
    assert same["measured"] == record(rows, judges, p)["measured"]
    assert changed(same, subject) == ["subjects.1.rows.1", "gallery.photos"]
    assert changed(same, gallery) == changed(same, training) == ["gallery.photos"]


@pytest.mark.parametrize(("key", "name"), [("objects", "judge"), ("strict", "strict_judge"), ("texts", "text_judge")])
def test_one_changed_weight_of_a_judge_is_named(rows: Path, judges: Judges, key: str, name: str) -> None:
    before = record(rows, judges)
    last = list(getattr(judges, key).model.parameters())[-1].data.view(-1)
    value = float(last[-1])
    last[-1] += 0.001
    after = record(rows, judges)
    last[-1] = value
    assert changed(before, after) == [f"judges.{name}.weights"]
    assert record(rows, judges) == before


def test_a_network_of_a_score_is_known_by_its_weights_and_a_packages_by_name(rows: Path, judges: Judges) -> None:
    def scored(**scores: Any) -> dict[str, Any]:
        p = params(scores=scores)
        subjects = eval_subjects(rows, p, "removed")
        return protocol_record(p, SETTINGS.detect, subjects, judges, networks, None, rows, ENCODER, None)

    networks = load_networks(params(scores={"dino": "mini", "clip_b32": "mini"}).scores, "cpu")
    before = scored(dino="mini", clip_b32="mini")
    assert set(before["measured"]["scores"]) == {"dino", "clip_b32", "clip_b32_tokenizer"}
    last = list(networks.vision["dino"].model.parameters())[-1].data.view(-1)
    value = float(last[-1])
    last[-1] += 0.001
    assert changed(before, scored(dino="mini", clip_b32="mini")) == ["scores.dino.weights"]
    last[-1] = value
    assert changed(before, scored(dino="mini", clip_b32="mini", lpips="alex")) == ["scores.lpips"]
    assert changed(record(rows, judges), before) == ["scores.dino", "scores.clip_b32", "scores.clip_b32_tokenizer"]


def test_a_vision_language_model_is_known_by_its_questions_and_weights_not_by_how_it_is_reached(tmp_path: Path) -> None:
    spec = str(tiny_vlm.write(tmp_path / "vlm"))
    p = params(vlm={"model": spec}).vlm
    assert p is not None
    found = vlm_record(p, load_vlm_judge(p, "cpu", tmp_path / "answers"))
    assert spec not in json.dumps(found)
    assert {"at_once", "api_key_env", "timeout", "retries"}.isdisjoint(found)
    assert {"cp_prompt", "pf_prompt", "max_side", "model"} <= set(found)


def judge_folder(folder: Path, file: str | None = None, **values: Any) -> str:
    """A copy of mini's strict judge, with a value of one of its configs changed."""
    shutil.copytree(MINI / "strict_judge", folder)
    if file is not None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, **values}))
    return str(folder)


def test_a_judges_place_is_of_no_account_but_its_preprocessing_and_config_are(rows: Path, tmp_path: Path) -> None:
    folders = [
        judge_folder(tmp_path / "one"), judge_folder(tmp_path / "home" / "other"),
        judge_folder(tmp_path / "bright", "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5]),
        judge_folder(tmp_path / "lenient", "config.json", accepted_from=0.1),
    ]  # fmt: skip
    specs = [params(strict_judge=folder) for folder in folders]
    first, moved, bright, lenient = (record(rows, load_judges(p, "cpu"), p) for p in specs)
    assert first == moved
    assert changed(first, bright) == ["judges.strict_judge.preprocessing.image_mean.0"]
    assert changed(first, lenient) == ["judges.strict_judge.config"]
    assert str(tmp_path) not in json.dumps(first)


def test_without_a_strict_judge_all_of_it_is_named(rows: Path, judges: Judges) -> None:
    p = params(strict_judge=None)
    assert changed(record(rows, judges), record(rows, replace(judges, strict=None), p)) == ["judges.strict_judge"]


def test_the_detector_is_known_by_its_weights_and_thresholds(rows: Path, judges: Judges, tmp_path: Path) -> None:
    copy, retrained = tmp_path / "copy", tmp_path / "retrained"
    for folder in (copy, retrained):
        shutil.copytree(MINI / "detector", folder)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (retrained / "model.safetensors").write_bytes(data)
    first = record(rows, judges)
    assert changed(first, record(rows, judges, detector=str(copy))) == []
    assert changed(first, record(rows, judges, detector=str(retrained))) == ["detection.detector"]
    assert changed(first, record(rows, judges, score=0.5)) == ["detection.score"]
    assert changed(first, record(rows, judges, min_side=8)) == []  # of photos to train on


def test_the_encoder_and_the_name_stand_beside_what_is_compared(rows: Path, judges: Judges) -> None:
    p, folder = params(), str(rows)
    named = Protocol(name="ours", version=2, evaluate=p)
    subjects = eval_subjects(rows, p, "removed")
    encoder = encoder_record(folder, "1" * 16, "owner/base", "bf16")
    found = protocol_record(p, SETTINGS.detect, subjects, judges, NO_SCORES, None, rows, encoder, named)
    assert found["fingerprint"] == record(rows, judges, p)["fingerprint"]
    assert found["encoder"] == {"name": "rows", "fingerprint": "1" * 16, "base": "owner/base", "precision": "bf16"}
    assert title(found) == f"ours 2, fingerprint {found['fingerprint']}"


def test_results_of_different_protocols_are_refused_with_both_values(rows: Path, judges: Judges) -> None:
    p = params(subjects=["thing-0", "thing-1"])
    other = params(subjects=["thing-0", "thing-1"], seed=3, sampling={**SAMPLING, "steps": 50})
    one, two = (Results(Path(name), record(rows, judges, of), [], {}) for name, of in (("a", p), ("b", other)))
    require_same_protocol(one, one)
    with pytest.raises(TamingError) as caught:
        require_same_protocol(one, two)
    assert str(caught.value) == (
        "a and b are of different protocols: seed is 0 and 3; sampling.steps is 9 and 50. Evaluate both with the same "
        "rows, params and --protocol."
    )


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_protocol_loads_and_names_itself(name: str) -> None:
    found = load_protocol(name, params())
    assert found.name == name
    assert found.version is not None
    assert found.description


def test_a_protocol_file_is_checked_like_params(tmp_path: Path) -> None:
    values = yaml.safe_load((Path(MINI).parent / "evaluation" / "protocols" / "mini.yaml").read_text())

    def load(**changes: Any) -> Protocol:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**values, **changes}))
        return load_protocol(str(tmp_path / "mine.yaml"), params())

    assert load(name="mine").evaluate == load_protocol("mini", params()).evaluate
    with pytest.raises(TamingError, match=r"mine\.yaml: evaluate\.judg is not a known key; known here: .*judge"):
        load(judg="mini")
    with pytest.raises(TamingError, match=r"evaluate\.objects must be 1"):
        load(subjects=["robot"])
    for key in ("control_objects", "baselines", "guidance"):
        values.pop(key, None)
    conditions = load().evaluate.model_dump(include={"control_objects", "baselines", "guidance"})
    assert conditions == params().model_dump(include={"control_objects", "baselines", "guidance"})
    values.pop("name")
    with pytest.raises(TamingError, match=r"mine\.yaml: name is missing"):
        load()
    with pytest.raises(TamingError, match=r"There is no protocol nothing\. Use --protocol with .*mini"):
        load_protocol("nothing", params())


def test_weights_are_known_by_their_values_alone() -> None:
    from taming_core.weights.network_fingerprint import state_digest

    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert state_digest(one) != state_digest(other)
    other.load_state_dict(one.state_dict())
    assert state_digest(one) == state_digest(other)
