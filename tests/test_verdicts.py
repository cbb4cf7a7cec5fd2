"""From features to rows and metrics, on features made by hand."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, composed

from taming_core import verdicts
from taming_core.config import EvaluateParams, load_params, packaged_params
from taming_core.evaluation import Thing
from taming_core.scores import Estimate
from taming_core.subjects import Finder
from taming_core.verdicts import Gallery

EYE = np.eye(4, dtype=np.float32)
KNOWN = Gallery({"seen": 0, "a": 1, "b": 2}, EYE[[3, 0, 1]], np.array([False, True, True]))


def about(condition: str, identity: str, kind: str = "scene", shown: str | None = None, **more: Any) -> dict[str, Any]:
    return {"condition": condition, "identity": identity, "kind": kind, "shown": shown, **more}


def test_the_judge_looks_among_the_held_out_and_among_all() -> None:
    mixed = np.float32([[0.6, 0, 0, 0.8]])  # most like the thing of another split, then like a
    said = verdicts.judged([about("ours", "a", shown="a")], mixed, KNOWN)[0]
    assert (said["judge_top1"], said["judge_top1_all"]) == (1, 0)
    assert said["judge_cosine"] == said["cosine"] == pytest.approx(0.6)
    assert said["judge_cosine_other"] == 0
    assert "donor_top1" not in said
    assert "judge_top5" not in said


def test_of_another_objects_tokens_the_judge_finds_the_donor() -> None:
    said = verdicts.judged([about("another_object", "a", shown="b")], EYE[[1]], KNOWN)[0]
    assert (said["judge_top1"], said["donor_top1"]) == (0, 1)


def test_styles_do_not_count_for_fidelity() -> None:
    said = verdicts.judged([about("ours", "a", "style", "a")], EYE[[0]], KNOWN)[0]
    assert {key for key in said if "judge" in key} == {"style_judge_top1"}


def params() -> EvaluateParams:
    p = load_params(packaged_params()).evaluate.model_dump()
    choices = {
        "scenes": ["here"],
        "scene_choices": ["here", "there"],
        "styles": ["ink"],
        "style_choices": ["ink", "oil"],
    }
    return EvaluateParams.model_validate({**p, **choices})


def test_the_text_judge_chooses_among_prompts_of_the_same_kind() -> None:
    asked: list[str] = []

    def texts(prompts: Any) -> np.ndarray:
        asked.extend(prompts)
        return EYE[:2] if "here" in prompts[0] else EYE[2:]

    rows = [
        about("ours", "a", asked="here"),
        about("ours", "a", "style", asked="ink"),
        about("real_photos", "a", "photo"),
    ]
    said = verdicts.read(rows, EYE[[1, 2, 0]], texts, params())
    assert asked == ["a photo of a <object> here", "a photo of a <object> there", "ink a <object>", "oil a <object>"]
    assert (said[0]["chosen"], said[0]["scene_accuracy"]) == ("there", 0)
    assert (said[1]["chosen"], said[1]["style_accuracy"]) == ("ink", 1)
    assert said[2] == rows[2]


def shape_of(find: Finder) -> dict[str, Any]:
    photo, _ = composed(artwork(1)[0], 0)
    thing = Thing("a", artwork(1)[0], ())
    return next(verdicts.shaped([about("ours", "a")], [Image.fromarray(photo)], [thing], find))


def test_shape_is_zero_where_nothing_is_found_and_says_so() -> None:
    _, mask = composed(artwork(1)[0], 0)
    found, lost = shape_of(lambda _: [mask]), shape_of(lambda _: [])
    assert found["shape"] > 0.85
    assert found["shape_found"] == 1
    assert (lost["shape"], lost["shape_iou"], lost["shape_edges"], lost["shape_found"]) == (0, 0, 0, 0)
    assert "shape_flipped" not in lost


def test_shape_is_that_of_the_object_which_agrees_best() -> None:
    _, mask = composed(artwork(1)[0], 0)
    corner = np.zeros_like(mask)
    corner[:9, :30] = True
    assert shape_of(lambda _: [corner, mask])["shape"] == shape_of(lambda _: [mask])["shape"]
    assert shape_of(lambda _: [corner] * verdicts.LOOKED_AT + [mask])["shape"] < 0.7


def test_diversity_is_within_one_thing_and_condition() -> None:
    rows = [
        about("ours", "a"),
        about("ours", "a"),
        about("ours", "b"),
        about("ours", "a", "style"),
        about("real_photos", "a"),
    ]
    assert verdicts.diversity(rows, EYE[[0, 1, 2, 3, 0]]) == [
        {"condition": "ours", "identity": "a", "diversity": pytest.approx(1)}
    ]


def test_the_summary_averages_what_is_there() -> None:
    rows = [about("ours", "a", shape=0.5), about("ours", "b", shape=1.0), about("no_object", "a", scene_accuracy=1.0)]
    found = verdicts.summary(rows, 0)
    assert found["ours"]["shape"] == Estimate(0.75, 0.5, 1.0, 2)
    assert set(found["no_object"]) == {"scene_accuracy"}
    assert verdicts.metrics(found) == {"ours": {"shape": 0.75}, "no_object": {"scene_accuracy": 1.0}}
    assert verdicts.intervals(found)["ours"] == {"shape": {"low": 0.5, "high": 1.0, "count": 2}}
