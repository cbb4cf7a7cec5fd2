"""The check of the judges: what it shows of scores whose eyesight is known, and what it writes."""

import csv
import doctest
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, composed, row, write_rows

from stages.evaluate import evaluate
from taming_core.errors import TamingError
from taming_core.evaluation import corruptions, judge_check, judge_check_files, pair_scores, shape
from taming_core.evaluation.corruptions import MaskedPhoto
from taming_core.evaluation.intervals import estimate_share
from taming_core.evaluation.judge_check import COMPARISONS, JudgeCheck
from taming_core.evaluation.judges import load_judge
from taming_core.photos.masks import mask_box
from taming_core.tables import schema
from taming_core.tables.rows import load_rows


def photo(number: int, view: int = 0) -> MaskedPhoto:
    return MaskedPhoto(*composed(artwork(6)[number], view))


def test_doctests() -> None:
    assert sum(doctest.testmod(m).failed for m in (judge_check, judge_check_files)) == 0


@pytest.mark.parametrize("number", range(4))
def test_a_corruption_changes_the_object_and_leaves_the_photo(number: int) -> None:
    whole = photo(number)
    copies = corruptions.corrupted_copies(whole, photo((number + 1) % 4), np.random.default_rng(0))
    assert set(copies) <= set(corruptions.CORRUPTIONS)
    assert {"bent_strongly", "blended", "part_swapped"} <= set(copies)
    for name, copy in copies.items():
        untouched = ~shape.dilate(copy.mask | whole.mask, 5)
        assert np.array_equal(copy.image[untouched], whole.image[untouched]), name
        assert corruptions.difference(whole, copy) > corruptions.VISIBLE
        assert copy.mask.any()


def test_what_changes_nothing_visible_is_no_corruption() -> None:
    grey = photo(0)._replace(image=np.full((128, 128, 3), 90, np.uint8))
    copies = corruptions.corrupted_copies(grey, photo(1), np.random.default_rng(0))
    assert not {"recoloured", "mirrored", "bent"} & set(copies)


def test_more_reach_bends_more() -> None:
    whole, ground = photo(1), corruptions.background_of(photo(1))
    layers = corruptions.Layers(corruptions.layer_of(whole), corruptions.layer_of(whole), mask_box(whole.mask))
    by = [
        corruptions.difference(
            whole, corruptions.composite(ground, corruptions.bent(layers, np.random.default_rng(0), reach))
        )
        for reach in (0.0, *corruptions.REACHES.values())
    ]
    assert by[0] == 0
    assert by == sorted(by)


def test_a_mirrored_copy_is_mirrored_and_a_recoloured_one_has_the_same_silhouette() -> None:
    whole = photo(2)
    copies = corruptions.corrupted_copies(whole, photo(1), np.random.default_rng(0))
    x0, y0, x1, y1 = mask_box(whole.mask)
    assert np.array_equal(copies["mirrored"].mask[y0:y1, x0:x1], whole.mask[y0:y1, x0:x1][:, ::-1])
    assert np.array_equal(copies["recoloured"].mask, whole.mask)


def test_another_object_takes_the_place_of_the_first() -> None:
    placed = corruptions.transplanted(photo(0), photo(1))
    found, place = mask_box(placed.mask), mask_box(photo(0).mask)
    assert max(found[2] - found[0], found[3] - found[1]) == pytest.approx(
        max(place[2] - place[0], place[3] - place[1]), abs=2
    )
    assert found[0] + found[2] == pytest.approx(place[0] + place[2], abs=3)


def test_the_same_object_is_preferred_among_those_of_its_class() -> None:
    classes = {"rex": "dog", "fido": "dog", "tom": "cat", "van": "truck", "thing": None}
    assert judge_check.donors_of("rex", classes) == (["fido"], "class")
    assert judge_check.donors_of("tom", classes) == (["rex", "fido"], "class group")
    assert judge_check.donors_of("van", classes) == (["rex", "fido", "tom", "thing"], "any")
    assert judge_check.donors_of("thing", classes)[1] == "any"


def of_background(reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """A score that sees backgrounds alone."""
    return [-float(np.abs(c.image[:8].astype(float) - reference.image[:8]).mean()) for c in candidates]


def of_area(reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """A score that sees nothing."""
    return [0.5 for _ in candidates]


def of_pixels(reference: MaskedPhoto, candidates: Sequence[MaskedPhoto], true: dict[str, bytes]) -> list[float]:
    """A score that knows the true photos."""
    return [float(true.get(c.image.tobytes()) == reference.image.tobytes()) for c in candidates]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows", held_out=4)


@pytest.fixture(scope="module")
def checked(rows: Path) -> JudgeCheck:
    table = load_rows(rows, "test")
    photos = {table[i]["row_id"]: judge_check.masked_photo(table[i]) for i in range(len(table))}
    seen = {p.image.tobytes(): photos[f"{name[:-1]}0"].image.tobytes() for name, p in photos.items() if p}
    scores = {"background": of_background, "nothing": of_area, "all": partial(of_pixels, true=seen)}
    return judge_check.check(rows, "test", 0, scores)


def test_a_score_that_sees_nothing_ties(checked: JudgeCheck) -> None:
    assert {o.win_rate.mean for o in checked.outcomes["nothing"].values()} == {0.5}


def test_a_score_that_sees_backgrounds_prefers_another_object_in_the_place_of_the_reference(
    checked: JudgeCheck,
) -> None:
    found = checked.outcomes["background"]
    assert found["another_in_place"].win_rate.mean == 0
    assert found["bent_strongly"].win_rate.mean == pytest.approx(0.5, abs=0.2)  # nothing else has changed


def test_a_score_that_knows_the_object_wins_every_time_and_four_objects_are_no_certainty(checked: JudgeCheck) -> None:
    found = checked.outcomes["all"]
    assert {o.win_rate.mean for key, o in found.items() if key != "backgrounds_exchanged"} == {1.0}
    assert found["blended"].win_rate.low == estimate_share([1.0] * 4, range(4)).low < 0.4
    assert found["another_object"].objects == 4


def test_the_same_seed_makes_the_same_trials_and_another_seed_others(rows: Path) -> None:
    def pictures(seed: int) -> list[bytes]:
        found = judge_check.trials_of_objects(load_rows(rows, "test"), seed)
        return [c.image.tobytes() for trials in found for t in trials for c in t.candidates.values()]

    assert pictures(0) == pictures(0) != pictures(1)


def test_an_object_in_one_photo_is_no_reference(tmp_path: Path) -> None:
    alone = {**row(artwork(3)[2], "alone", 0, "test"), "references": []}
    table = [row(artwork(3)[i], f"thing-{i}", view, "test") for i in (0, 1) for view in (0, 1)]
    schema.write([schema.table([*table, alone], schema.ROWS)], schema.ROWS, tmp_path / "test-00000.parquet")
    found = judge_check.check(tmp_path, "test", 0, {"nothing": of_area})
    assert {t.identity for t in found.trials} == {"thing-0", "thing-1"}
    schema.write([schema.table([*table[:2], alone], schema.ROWS)], schema.ROWS, tmp_path / "test-00000.parquet")
    with pytest.raises(TamingError, match="fewer than two objects with two photos"):
        judge_check.check(tmp_path, "test", 0, {"nothing": of_area})


def test_the_scores_are_those_of_the_evaluation(rows: Path) -> None:
    """The object judge gets the reference on grey and the candidate in its photo; the strict one both cut out."""
    judge = load_judge("mini", "cpu")
    table = load_rows(rows, "test")
    first, other = (judge_check.masked_photo(table[i]) for i in (0, 2))
    assert first is not None
    assert other is not None
    scores = pair_scores.pair_scores(judge, None, {"dino": judge})
    assert list(scores) == ["object judge", "shape", "dino", "dino masked"]
    whole, masked = (scores[name](first, [first, other]) for name in ("dino", "dino masked"))
    assert whole[0] == pytest.approx(1, abs=1e-5)
    assert masked[0] == pytest.approx(1, abs=1e-5)
    features = judge([Image.fromarray(first.image), Image.fromarray(other.image)])
    assert whole[1] == pytest.approx(float(features[0] @ features[1]), abs=1e-5)
    assert scores["shape"](first, [first]) == [1.0]


def test_the_command_writes_numbers_pictures_and_words(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "judges"
    evaluate(rows=rows, out=out, device="cpu", check_judges=True)
    printed = capsys.readouterr().out
    assert "4 objects of the test split, 4 pairs of photos" in printed
    assert "another object in the reference's place" in printed
    assert sorted(p.name for p in out.iterdir()) == ["judge_check.csv", "judge_check.json", "judge_check.png"]
    found = json.loads((out / "judge_check.json").read_text(encoding="utf-8"))
    assert set(found["judges"]) == {"object judge", "strict judge", "shape"}
    assert found["other_objects_of_the_same"] == {"class": 0, "class group": 0, "any": 4}
    assert len(found["sentences"]) == 3
    with (out / "judge_check.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["comparison"] for line in lines} == {c.key for c in COMPARISONS}
    for line in lines:
        assert float(line["low"]) <= float(line["win_rate"]) <= float(line["high"])
    sheet = Image.open(out / "judge_check.png")
    assert sheet.width > 12 * 128
    before = [(out / name).read_bytes() for name in ("judge_check.csv", "judge_check.json", "judge_check.png")]
    evaluate(rows=rows, out=out, device="cpu", check_judges=True)
    assert before == [(out / n).read_bytes() for n in ("judge_check.csv", "judge_check.json", "judge_check.png")]


def test_a_flag_that_would_be_ignored_is_an_error(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="--encoder has no effect with --judge-check"):
        evaluate(encoder="mini", rows=rows, out=tmp_path / "out", check_judges=True)
    with pytest.raises(TamingError, match="--precision has no effect"):
        evaluate(rows=rows, out=tmp_path / "out", precision="bf16", check_judges=True)
    with pytest.raises(TamingError, match="--offload has no effect"):
        evaluate(rows=rows, out=tmp_path / "out", offload=True, check_judges=True)
    with pytest.raises(TamingError, match="--base has no effect"):
        evaluate(rows=rows, out=tmp_path / "out", base="mini", check_judges=True)
    assert not (tmp_path / "out").exists()


def test_nothing_but_an_earlier_check_is_replaced(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("Once", encoding="utf-8")
    with pytest.raises(TamingError, match="holds something else than a check of judges"):
        evaluate(rows=rows, out=tmp_path, check_judges=True)
