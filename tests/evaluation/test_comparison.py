"""Differences of two evaluations: paired by image, of the right sign, with intervals that hold."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stages.cli import app
from taming_core.errors import TamingError
from taming_core.evaluation import comparison, measures
from taming_core.evaluation.comparison import Difference, Results

RUNS, IMAGES = 400, 4


def image(identity: str, asked: str = "here", seed: int = 0, **scores: float) -> dict[str, Any]:
    row = {"condition": "ours", "identity": identity, "kind": "scene", "asked": asked, "seed": seed, "shown": identity}
    return {**row, "image": f"{identity}-{asked}-{seed}.png", **scores}


def results(rows: list[dict[str, Any]], folder: str = "a", fingerprint: str = "f", **metrics: float) -> Results:
    found = measures.metrics(measures.summary(rows))
    found["ours"] = {**found.get("ours", {}), **metrics}
    encoder = {"name": folder, "fingerprint": "0" * 16, "base": None, "precision": "fp32"}
    protocol = {"name": "mini", "version": 1, "fingerprint": fingerprint, "measured": {"seed": fingerprint}}
    return Results(Path(folder), {**protocol, "encoder": encoder}, rows, found)


def of_objects(values: list[float], **constant: float) -> list[dict[str, Any]]:
    return [image(f"thing-{i}", shape=value, copying=-value, **constant) for i, value in enumerate(values)]


def by_measure(first: Results, second: Results) -> dict[str, Difference]:
    return {d.measure: d for d in comparison.differences(first, second)}


LOW, HIGH = [0.5, 0.6, 0.4, 0.5], [0.7, 0.82, 0.58, 0.71]


def test_the_difference_is_the_second_less_the_first_in_both_directions() -> None:
    worse, better = results(of_objects(LOW)), results(of_objects(HIGH), "b")
    up, down = by_measure(worse, better), by_measure(better, worse)
    assert (up["shape"].first, up["shape"].second, up["shape"].difference) == (0.5, 0.7025, 0.2025)
    assert 0.17 < up["shape"].low < 0.2025 < up["shape"].high < 0.24
    assert up["shape"].better == "second"
    assert down["shape"] == ("ours", "shape", 0.7025, 0.5, -0.2025, -up["shape"].high, -up["shape"].low, "first")


def test_where_lower_is_better_the_lower_one_is() -> None:
    found = by_measure(results(of_objects(LOW)), results(of_objects(HIGH), "b"))["copying"]
    assert (found.difference, found.better) == (-0.2025, "second")


def test_images_are_paired_so_that_objects_may_differ_more_than_encoders() -> None:
    objects = np.random.default_rng(0).uniform(0, 1, 8)
    first, second = (results(of_objects(list(objects + gain))) for gain in (0.0, 0.02))
    assert by_measure(first, second)["shape"].better == "second"
    reversed_rows = list(reversed(second.rows))
    assert by_measure(first, results(reversed_rows)) == by_measure(first, second)


def test_no_encoder_is_better_where_the_interval_holds_zero() -> None:
    found = by_measure(results(of_objects([0.5, 0.6, 0.4])), results(of_objects([0.6, 0.5, 0.45])))
    assert found["shape"].low < 0 < found["shape"].high
    assert found["shape"].better is None
    same = by_measure(results(of_objects(LOW)), results(of_objects(LOW)))["shape"]
    assert same == ("ours", "shape", 0.5, 0.5, 0.0, 0.0, 0.0, None)


def test_shares_have_the_interval_of_paired_shares() -> None:
    first, second = (
        results([image(f"thing-{i}", strict_pass=float(i < right)) for i in range(12)]) for right in (2, 11)
    )
    found = by_measure(first, second)["strict_pass"]
    assert (found.difference, found.better) == (0.75, "second")
    assert 0.2 < found.low < 0.75 < found.high < 1
    one = by_measure(*(results([image("thing", strict_pass=float(right))]) for right in (0, 1)))["strict_pass"]
    assert (one.low, one.high, one.better) == (-1, 1, None)  # of one object anything is possible


def test_only_images_that_both_have_are_compared() -> None:
    first = results([image("a", seed=1, shape=0.5), image("a", seed=2, shape=0.1), image("b", seed=3, shape=0.5)])
    second = results([image("b", seed=3, shape=0.6), image("a", seed=1, shape=0.6), image("a", seed=4, shape=0.9)])
    found = by_measure(first, second)["shape"]
    assert (found.first, found.second, found.difference) == (0.5, 0.6, 0.1)


def test_scores_of_a_whole_condition_have_no_interval() -> None:
    key = next(m.key for m in measures.MEASURES if m.key != comparison.NOT_COMPARED and m.key != "shape")
    first, second = (results(of_objects(LOW), **{key: value}) for value in (0.25, 0.5))
    assert by_measure(first, second)[key] == ("ours", key, 0.25, 0.5, 0.25, None, None, None)


@pytest.mark.parametrize("gain", [0.0, 0.05])
def test_intervals_of_paired_means_hold_the_true_difference(gain: float) -> None:
    rng, objects = np.random.default_rng(0), 8
    m = next(m for m in measures.MEASURES if m.key == "shape")
    of = np.repeat(np.arange(objects), IMAGES).astype(str)
    covered = []
    for _ in range(RUNS):
        gains = np.repeat(gain + rng.normal(0, 0.05, objects), IMAGES)  # an encoder may suit one object more
        e = m.estimate_difference((gains + rng.normal(0, 0.08, len(of))).tolist(), list(of))
        covered.append(e.low <= gain <= e.high)
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.8), (0.85, 0.6)])
@pytest.mark.parametrize("objects", [8, 32])
def test_intervals_of_paired_shares_hold_the_true_difference(first: float, second: float, objects: int) -> None:
    """The same object is easy or hard for both: the images of an object correlate, and so do both encoders."""
    rng, covered = np.random.default_rng(objects), []
    m = next(m for m in measures.MEASURES if m.key == "strict_pass")
    of = np.repeat(np.arange(objects), IMAGES).astype(str)
    for _ in range(RUNS):
        ease = rng.normal(0, 0.12, objects)
        drawn = [(rng.random((objects, IMAGES)) < (p + ease)[:, None]).astype(float).ravel() for p in (first, second)]
        e = m.estimate_difference((drawn[1] - drawn[0]).tolist(), list(of))
        covered.append(e.low <= second - first <= e.high)
    assert np.mean(covered) >= 0.93


def test_intervals_of_two_objects_in_an_image_hold_the_truth() -> None:
    """Each object is in the image before and in its own, so that neighbouring images have one in common."""
    rng, objects, covered, alone = np.random.default_rng(0), 16, [], []
    m = next(m for m in measures.MEASURES if m.key == "both_found")
    for _ in range(RUNS):
        ease = rng.normal(0, 0.25, objects)
        share = np.clip(0.5 + (ease + np.roll(ease, -1)) / 2, 0, 1)
        right = (rng.random((IMAGES, objects)) < share).astype(float).T.ravel()
        first = np.repeat(np.arange(objects), IMAGES).astype(str)
        second = np.repeat(np.roll(np.arange(objects), -1), IMAGES).astype(str)
        rows = [{"identity": i, "beside": j} for i, j in zip(first, second, strict=True)]
        for found, factors in ((covered, measures.factors(rows)), (alone, [list(first)])):
            e = m.estimate(right.tolist(), *factors)
            found.append(e.low <= 0.5 <= e.high)
    assert np.mean(covered) >= 0.93
    assert np.mean(alone) < np.mean(covered)


def written(folder: Path, rows: list[dict[str, Any]], fingerprint: str = "f") -> Path:
    folder.mkdir()
    r = results(rows, folder.name, fingerprint)
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "protocol.json").write_text(json.dumps(r.protocol))
    (folder / "metrics.json").write_text(json.dumps(r.metrics))
    return folder


def test_the_command_prints_a_table_and_writes_two_files(tmp_path: Path) -> None:
    first = written(tmp_path / "first", of_objects(LOW, strict_pass=0.0))
    second = written(tmp_path / "second", of_objects(HIGH, strict_pass=1.0))
    done = CliRunner().invoke(app, ["eval", "--compare", str(first), str(second), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    table = [line.split() for line in done.stdout.splitlines()]
    assert ["Shape", "0.50", "0.70", "+0.203", "+0.175", "to", "+0.230", "B"] in [line[:8] for line in table]
    assert ["Copying", "-0.50", "-0.70", "-0.203"] in [line[:4] for line in table]
    assert done.stdout.splitlines()[0].startswith("A: ")
    with (tmp_path / "out" / "compare.csv").open() as file:
        lines = {line["measure"]: line for line in csv.DictReader(file)}
    assert (lines["shape"]["difference"], lines["shape"]["better"]) == ("0.2025", "second")
    assert (lines["strict_pass"]["difference"], lines["strict_pass"]["better"]) == ("1.0", "")  # of four objects
    whole = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert whole["encoders"]["second"]["name"] == "second"
    assert {d["measure"]: d["difference"] for d in whole["differences"]} == {
        key: float(line["difference"]) for key, line in lines.items()
    }


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = written(tmp_path / "first", of_objects(LOW))
    other = written(tmp_path / "other", of_objects(LOW), "g")
    old = written(tmp_path / "old", of_objects(LOW))
    (old / "protocol.json").unlink()
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (other, "different protocols: seed is f and g. Evaluate both"),
        (old, "old is of an older version and does not say"),
        (tmp_path / "empty", "empty holds no evaluation. Name a folder"),
    ):
        for pair in ((first, folder), (folder, first)):
            done = CliRunner().invoke(app, ["eval", "--compare", *map(str, pair)])
            assert isinstance(done.exception, TamingError)
            assert message.replace("f and g", "f and g" if pair[0] == first else "g and f") in str(done.exception)


@pytest.mark.parametrize("flag", [["--encoder", "mini"], ["--protocol", "mini"], ["--offload"], ["--device", "cpu"]])
def test_flags_without_an_effect_are_refused(flag: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["eval", "--compare", str(tmp_path), str(tmp_path), *flag])
    assert isinstance(done.exception, TamingError)
    assert str(done.exception) == f"{flag[0]} has no effect with --compare. Leave it out."


def test_other_things_are_not_overwritten(tmp_path: Path) -> None:
    first = written(tmp_path / "first", of_objects(LOW))
    second = written(tmp_path / "second", of_objects(HIGH))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for out, message in ((first / "c", "is in"), (tmp_path / "full", "something else than a comparison")):
        done = CliRunner().invoke(app, ["eval", "--compare", str(first), str(second), "--out", str(out)])
        assert message in str(done.exception)
