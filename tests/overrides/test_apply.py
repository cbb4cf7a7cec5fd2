"""What a person said, on the rows of one photo: of the object that is meant, and of no other."""

from typing import Any

import numpy as np
from overridden import CUP, HAND, box_mask, object_row, photo_row

from taming_core.overrides import statements
from taming_core.overrides.apply import correct
from taming_core.overrides.matching import assign, corrections
from taming_core.overrides.table import Override
from taming_core.photos.masks import encode_mask

MUG = object_row(0, CUP, "cup")
OTHER = object_row(1, HAND, "hand")
MOVED = (12, 11, 51, 50)


def apply(rows: list[dict[str, Any]], *said: Override) -> list[dict[str, Any]]:
    return correct(rows, corrections(said).get(rows[0]["photo_id"], [])).rows


def unmatched(rows: list[dict[str, Any]], *said: Override) -> list[list[str]]:
    return [c.fields for c in correct(rows, corrections(said).get(rows[0]["photo_id"], [])).unmatched]


def test_a_rejected_object_stays_as_a_row_with_its_reason() -> None:
    assert apply([MUG, OTHER], statements.reject(OTHER)) == [
        MUG,
        {**OTHER, "drop_reason": "rejected by a person", "override": ["rejected"]},
    ]


def test_a_restored_object_says_so_and_has_no_reason() -> None:
    dropped = {**OTHER, "drop_reason": "cut off: left"}
    assert apply([MUG, dropped], statements.restore(dropped)) == [MUG, {**OTHER, "override": ["restored"]}]


def test_the_last_decision_counts_and_without_it_the_one_before() -> None:
    said = [statements.reject(MUG), statements.restore(MUG)]
    assert apply([MUG], *said)[0]["override"] == ["restored"]
    assert apply([MUG], *said[:1])[0]["override"] == ["rejected"]
    assert apply([MUG]) == [MUG]


def test_another_mask_has_its_box_and_measures_and_what_models_measured_is_gone() -> None:
    (row,) = apply([MUG], statements.with_mask(MUG, box_mask((20, 20, 60, 40))))
    assert row == {
        **MUG,
        "box_xyxy": [20, 20, 60, 40],
        "mask_png": encode_mask(box_mask((20, 20, 60, 40))),
        "mask_source": "override",
        "mask_quality": None,
        "area_fraction": 0.1,
        "mask_fill": 1.0,
        "sharpness": None,
        "override": ["mask"],
    }


def test_the_box_of_a_mask_of_a_scaled_photo_is_in_pixels_of_the_upright_photo() -> None:
    large = {**MUG, "photo_width": 400, "photo_height": 320, "box_xyxy": [40, 40, 200, 200]}
    (row,) = apply([large], statements.with_mask(large, box_mask((20, 20, 60, 40))))
    assert row["box_xyxy"] == [80, 80, 240, 160]


def test_class_and_caption_are_the_persons() -> None:
    classified = {**MUG, "class_score": 0.7}
    said = statements.with_class(classified, "mug"), statements.with_caption(classified, "a <object> in a room")
    assert apply([classified], *said) == [
        {**MUG, "class": "mug", "override": ["class", "caption"], "override_caption": "a <object> in a room"}
    ]


def test_a_rerun_that_moves_the_boxes_and_swaps_the_objects_changes_nothing_of_what_is_meant() -> None:
    swapped = [object_row(0, HAND, "hand"), object_row(1, MOVED, "cup")]
    rows = apply(swapped, statements.with_class(MUG, "mug"), statements.reject(OTHER))
    assert [(r["class"], r["override"]) for r in rows] == [("hand", ["rejected"]), ("mug", ["class"])]


def test_of_two_objects_in_one_box_the_one_of_the_class_is_meant() -> None:
    bowl = object_row(1, CUP, "bowl")
    assert assign([MUG, bowl], corrections([statements.reject(bowl)])[MUG["photo_id"]]) == {1: 0}


def test_what_is_said_of_an_object_that_is_gone_falls_on_no_other() -> None:
    near = object_row(0, (10, 10, 50, 36), "cup")  # two thirds of the cup
    assert apply([near], statements.reject(MUG)) == [near]
    assert unmatched([near], statements.reject(MUG), statements.with_class(MUG, "mug")) == [["decision", "class"]]


def test_each_object_takes_what_fits_it_best() -> None:
    double = object_row(1, (11, 11, 51, 51), "cup", drop_reason="inside another: cup")
    said = statements.with_class(MUG, "mug"), statements.reject(double)
    assert [r["override"] for r in apply([MUG, double], *said)] == [["class"], ["rejected"]]


def test_an_object_that_is_restored_or_masked_is_there_although_no_detector_finds_it() -> None:
    for said in (statements.restore(OTHER), statements.with_mask(OTHER, box_mask(HAND))):
        rows = apply([MUG], said)
        assert rows[0] == MUG
        known = {"object_id": "mug/0.jpg-1", "identity": "mug/0.jpg-1", "class": "hand", "box_xyxy": list(HAND)}
        assert {**rows[1], **known, "drop_reason": None, "override": ["added"]} == rows[1]


def test_objects_are_added_to_a_photo_without_any_and_the_first_has_its_identity() -> None:
    photo = photo_row(given_class="mug")
    first, second = statements.added(photo, box_mask(CUP)), statements.added(photo, box_mask(HAND))
    named = Override(photo["photo_id"], photo["file_name"], HAND, None, "class", "hand", None)
    rows = apply([photo], first, second, named)
    columns = ("object_id", "identity", "class", "box_xyxy", "override")
    assert [tuple(r[c] for c in columns) for r in rows] == [
        ("mug/0.jpg-0", "mug", "mug", list(CUP), ["added"]),
        ("mug/0.jpg-1", "mug/0.jpg-1", "hand", list(HAND), ["added", "class"]),
    ]
    assert np.isclose(rows[0]["area_fraction"], 0.2)


def test_an_added_object_that_a_later_detector_finds_is_one() -> None:
    added = statements.added(photo_row(), box_mask(MOVED))
    (row,) = apply([MUG], added)
    assert (row["override"], row["box_xyxy"], row["class"]) == (["mask"], list(MOVED), "cup")


def test_identity_and_given_class_of_a_rejected_main_object_pass_to_a_kept_one() -> None:
    wrong, right = object_row(0, HAND, "mug", given_class="mug"), object_row(1, CUP, "bowl", given_class="mug")
    rows = apply([wrong, right], statements.reject(wrong))
    assert [(r["identity"], r["class"]) for r in rows] == [("mug/0.jpg-0", "mug"), ("mug", "mug")]
    rows = apply([wrong, right], statements.reject(wrong), statements.with_class(right, "jug"))
    assert [(r["identity"], r["class"]) for r in rows] == [("mug/0.jpg-0", "mug"), ("mug", "jug")]


def test_identities_that_are_known_of_every_object_stay() -> None:
    rows = [{**MUG, "identity": "mug"}, {**OTHER, "identity": "hand"}]
    assert [r["identity"] for r in apply(rows, statements.reject(rows[0]))] == ["mug", "hand"]


def test_a_photo_that_is_not_used_is_used_for_an_object_that_a_person_restored() -> None:
    rows = [{**row, "photo_reason": "nsfw too high: 0.9", "drop_reason": "nsfw too high: 0.9"} for row in (MUG, OTHER)]
    assert {r["photo_reason"] for r in apply(rows, statements.restore(rows[0]))} == {None}
    assert {r["photo_reason"] for r in apply(rows, statements.reject(rows[0]))} == {"nsfw too high: 0.9"}


def test_more_said_of_an_object_with_another_mask_is_of_the_same_one() -> None:
    mask = statements.with_mask(MUG, box_mask((40, 40, 90, 70)))
    said = corrections([mask])[MUG["photo_id"]]
    key = statements.key_of(MUG, [MUG, OTHER], said)
    assert key == CUP
    (row, other) = apply([MUG, OTHER], mask, statements.with_class(MUG, "mug", key))
    assert (row["override"], other) == (["mask", "class"], OTHER)
    moved = object_row(0, (41, 40, 90, 70), "cup")  # a better detector finds what the person showed
    assert apply([moved], mask)[0]["override"] == ["mask"]
    assert statements.key_of(moved, [moved], said) == CUP
