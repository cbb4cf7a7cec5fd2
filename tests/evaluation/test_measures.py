"""From features to rows and metrics, on features made by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, composed

from taming_core.evaluation import measures, object_scores, scoring, text_scores
from taming_core.evaluation.gallery import Gallery, Known
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.protocol import EvalSubject
from taming_core.objects.subjects import Finder
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import EvaluateParams

EYE = np.eye(4, dtype=np.float32)
KNOWN = Known(Gallery({"a": 0, "b": 1}, EYE[[2, 0, 1]][:, None], np.array([0, 0, 1])), EYE[[3]])  # a in two photos


def about(condition: str, identity: str, kind: str = "scene", shown: str | None = None, **more: Any) -> dict[str, Any]:
    row = {"condition": condition, "identity": identity, "kind": kind, "shown": shown}
    return {**row, "other_photos": float(identity == "a"), **more}


def test_the_judge_looks_among_the_held_out_and_among_all() -> None:
    mixed = np.float32([[0.6, 0, 0, 0.8]])  # most like the thing of another split, then like a
    said = object_scores.add_judge_scores([about("ours", "a", shown="a")], mixed, KNOWN)[0]
    assert (said["judge_top1"], said["judge_top1_all"]) == (1, 0)
    assert said["judge_cosine"] == said["cosine"] == pytest.approx(0.6)
    assert said["judge_cosine_other"] == said["judge_cosine_seen"] == 0
    assert "donor_top1" not in said
    assert "judge_top5" not in said


def test_of_another_objects_tokens_the_judge_finds_the_donor() -> None:
    said = object_scores.add_judge_scores([about("another_object", "a", shown="b")], EYE[[1]], KNOWN)[0]
    assert (said["judge_top1"], said["donor_top1"]) == (0, 1)


def test_a_copy_of_the_seen_picture_is_told_from_fidelity() -> None:
    rows = [about("ours", "a", shown="a"), about("ours", "a", shown="a"), about("ours", "b", shown="b")]
    copy, new, only = object_scores.add_judge_scores(rows, EYE[[2, 0, 1]], KNOWN)
    assert (copy["judge_top1"], copy["judge_cosine"], copy["judge_cosine_seen"], copy["copying"]) == (0, 0, 1, 1)
    assert (new["judge_top1"], new["judge_cosine"], new["judge_cosine_seen"], new["copying"]) == (1, 1, 0, -1)
    assert (only["judge_cosine"], only["judge_cosine_seen"]) == (1, 1)
    assert "copying" not in only  # b has no other photo


def test_styles_do_not_count_for_fidelity() -> None:
    said = object_scores.add_judge_scores([about("ours", "a", "style", "a")], EYE[[0]], KNOWN)[0]
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
    said = text_scores.add_text_scores(rows, EYE[[1, 2, 0]], texts, params())
    assert asked == ["a photo of a <object> here", "a photo of a <object> there", "ink a <object>", "oil a <object>"]
    assert (said[0]["chosen"], said[0]["scene_accuracy"]) == ("there", 0)
    assert (said[1]["chosen"], said[1]["style_accuracy"]) == ("ink", 1)
    assert said[2] == rows[2]


def shape_of(find: Finder) -> dict[str, Any]:
    photo, _ = composed(artwork(1)[0], 0)
    thing = EvalSubject("a", artwork(1)[0], artwork(1)[0], (), None)
    row, image = [about("ours", "a")], [Image.fromarray(photo)]
    return next(object_scores.add_shape_scores(row, image, [thing], list(scoring.find_objects(row, image, find))))


def test_shape_is_zero_where_nothing_is_found_and_says_so() -> None:
    _, mask = composed(artwork(1)[0], 0)
    found, lost = shape_of(lambda _: [mask]), shape_of(lambda _: [])
    assert found["shape"] > 0.85
    assert found["shape_found"] == 1
    assert (lost["shape"], lost["shape_iou"], lost["shape_edges"], lost["shape_found"]) == (0, 0, 0, 0)
    assert "shape_flipped" not in lost


def test_shape_is_that_of_another_photo_if_there_is_one() -> None:
    first, second = artwork(2)
    photo, mask = composed(second, 0)
    of = [EvalSubject("a", first, first, (), None, (second, first))]
    rows = [about("ours", "a"), about("real_photos", "a", "photo", photo=0)]
    like, unlike = object_scores.add_shape_scores(rows, [Image.fromarray(photo)] * 2, of, [[mask], [mask]])
    assert like["shape"] > 0.85 > unlike["shape"]  # the real photo is the second cut-out, and compared with the first


def test_shape_is_that_of_the_object_which_agrees_best() -> None:
    _, mask = composed(artwork(1)[0], 0)
    corner = np.zeros_like(mask)
    corner[:9, :30] = True
    assert shape_of(lambda _: [corner, mask])["shape"] == shape_of(lambda _: [mask])["shape"]
    assert shape_of(lambda _: [corner] * scoring.MAX_OBJECTS + [mask])["shape"] < 0.7


def test_objects_are_looked_for_once_and_not_in_styles() -> None:
    asked = 0

    def find(pixels: np.ndarray) -> list[np.ndarray]:
        nonlocal asked
        asked += 1
        return [np.ones(pixels.shape[:2], bool)] * 5

    rows = [about("ours", "a"), about("ours", "a", "style")]
    found = list(scoring.find_objects(rows, [Image.new("RGB", (8, 8))] * 2, find))
    assert asked == 1
    assert [len(masks) for masks in found] == [scoring.MAX_OBJECTS, 0]


def by_colour(images: Sequence[Image.Image]) -> np.ndarray:
    """A judge whose features are the colours in the middle of what it sees."""
    middle = np.float32([i.getpixel((64, 64)) for i in images])
    return np.pad(middle / np.linalg.norm(middle, axis=1, keepdims=True), ((0, 0), (0, 1)))


def half(left: bool) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[:, slice(0, 8) if left else slice(8, 16)] = True
    return mask


# The second pose of each is its own colour; the seen picture of b is red.
POSED = Gallery({"a": 0, "b": 1}, EYE[[[3, 0], [3, 0], [3, 1]]], np.array([0, 1, 1]))
RED_AND_GREEN = Image.fromarray(np.hstack([np.full((16, 8, 3), c, np.uint8) for c in ([200, 0, 0], [60, 200, 0])]))


def strict(found: list[np.ndarray], identity: str, accepted_from: float | None = 0.9) -> dict[str, Any]:
    row = about("ours", identity)
    return object_scores.add_strict_scores([row], [RED_AND_GREEN], [found], by_colour, POSED, accepted_from)[0]


def test_of_the_objects_the_one_most_like_the_subject_is_judged() -> None:
    both = [half(left=True), half(left=False)]
    said = strict(both, "a")  # the subject of a is red, that of b green
    assert (said["strict_top1"], said["strict_pass"], said["strict_cosine"]) == (1, 1, pytest.approx(1))
    said = strict(both, "b")
    assert (said["strict_top1"], said["strict_cosine"]) == (1, pytest.approx(200 / np.hypot(60, 200), abs=0.01))
    assert strict(both, "b", accepted_from=0.97)["strict_pass"] == 0
    assert said["strict_cosine_seen"] == pytest.approx(60 / np.hypot(60, 200), abs=0.01)  # of the same object


def test_another_things_cutout_is_neither_recognised_nor_accepted() -> None:
    said = strict([half(left=True)], "b")
    assert (said["strict_top1"], said["strict_pass"], said["strict_cosine"]) == (0, 0, pytest.approx(0))


def test_where_nothing_is_found_the_strict_judge_says_zero() -> None:
    said = strict([], "a", accepted_from=-1)
    assert (said["strict_top1"], said["strict_pass"], said["strict_cosine"]) == (0, 0, 0)


def test_without_a_threshold_nothing_is_accepted_or_rejected() -> None:
    assert {key for key in strict([half(left=True)], "a", None) if "strict" in key} == {
        "strict_top1", "strict_cosine", "strict_cosine_seen",
    }  # fmt: skip
    assert "strict_pass" not in strict([], "a", None)


def test_features_go_back_to_the_images_they_are_of() -> None:
    rows = [about("ours", i, kind) for i, kind in (("a", "scene"), ("a", "style"), ("b", "scene"), ("b", "scene"))]
    found = [[half(left=True)], [], [], [half(left=True), half(left=False)]]
    said = object_scores.add_strict_scores(rows, [RED_AND_GREEN] * 4, found, by_colour, POSED, 0.9)
    assert [r.get("strict_top1") for r in said] == [1, None, 0, 1]


def test_diversity_is_within_one_thing_and_condition() -> None:
    rows = [
        about("ours", "a"),
        about("ours", "a"),
        about("ours", "b"),
        about("ours", "a", "style"),
        about("real_photos", "a"),
    ]
    found = text_scores.add_diversity(rows, EYE[[0, 1, 2, 3, 0]])
    assert [r.get("diversity") for r in found] == [pytest.approx(1), pytest.approx(1), None, None, None]


def test_the_summary_averages_what_is_there() -> None:
    rows = [about("ours", "a", shape=0.5), about("ours", "b", shape=1.0), about("no_object", "a", scene_accuracy=1.0)]
    found = measures.summary(rows)
    assert found["ours"]["shape"] == Estimate(0.75, 0.0, 1.0, 2)
    assert set(found["no_object"]) == {"scene_accuracy", "other_photos"}
    assert measures.metrics(found) == {
        "ours": {"shape": 0.75, "other_photos": 0.5}, "no_object": {"scene_accuracy": 1.0, "other_photos": 1.0},
    }  # fmt: skip
    assert measures.intervals(found)["ours"]["shape"] == {"low": 0.0, "high": 1.0, "count": 2}


def of_two(identity: str, beside: str, image: str, **more: Any) -> dict[str, Any]:
    return about("ours", identity, shown=f"{identity} and {beside}", beside=beside, image=image, **more)


def test_both_are_found_where_both_are_accepted_and_an_image_counts_once() -> None:
    rows = [
        of_two("a", "b", "1.png", strict_top1=1.0, strict_pass=1.0),
        of_two("b", "a", "1.png", strict_top1=0.0, strict_pass=1.0),
        of_two("a", "b", "2.png", strict_top1=1.0, strict_pass=1.0),
        of_two("b", "a", "2.png", strict_top1=1.0, strict_pass=0.0),
        about("ours", "a", strict_top1=1.0, strict_pass=1.0, image="3.png"),
        of_two("a", "b", "4.png"),  # in a style
    ]
    assert [r.get("both_found") for r in object_scores.add_both_found(rows)] == [1, None, 0, None, None, None]
    for r in rows:
        r.pop("strict_pass", None)
    assert [r.get("both_found") for r in object_scores.add_both_found(rows)] == [0, None, 1, None, None, None]


def test_whole_prompts_get_no_choice() -> None:
    rows = [about("ours", "a", "scene", asked="a photo of a <object> here"), about("ours", "a", "action", asked="here")]
    p = params().model_copy(update={"styles": [], "style_choices": []})
    assert text_scores.add_text_scores(rows, EYE[:2], lambda texts: EYE[: len(texts)], p) == rows
