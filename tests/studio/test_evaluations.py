"""Two evaluations side by side, and the pictures behind a score."""

import json
from pathlib import Path

import pytest
from studio.written_evaluations import write

from taming_core.errors import TamingError
from taming_core.evaluation import comparison
from taming_core.evaluation.comparison import Results, read_results
from taming_core.studio import evaluations


@pytest.fixture
def both(tmp_path: Path) -> tuple[Results, Results]:
    write(tmp_path / "data/evaluation")
    write(tmp_path / "out/other", shift=0.2)
    return read_results(tmp_path / "data/evaluation"), read_results(tmp_path / "out/other")


def test_the_evaluations_of_a_project_are_found(both: tuple[Results, Results], tmp_path: Path) -> None:
    assert evaluations.folders(tmp_path) == ["data/evaluation", "out/other"]
    assert next(key for _, key in evaluations.conditions(both[0])) == "ours"


def test_the_table_is_that_of_compare(both: tuple[Results, Results]) -> None:
    rows = evaluations.table(*both, "ours")
    found = [d for d in comparison.differences(*both) if d.condition == "ours"]
    assert [row.cells for row in rows] == comparison.lines(found)
    strict = next(row.cells for row in rows if row.measure == "strict_cosine")
    assert (strict[0], strict[3], strict[5]) == ("Strict likeness", "+0.200", "B")
    alone = {row.measure: row.cells for row in evaluations.table(both[0], None, "ours")}
    assert alone["strict_cosine"][:2] == ["Strict likeness", strict[1]]


def test_pictures_are_paired_and_the_lowest_comes_first(both: tuple[Results, Results]) -> None:
    pairs = evaluations.pictures(*both, "ours", "strict_cosine")
    assert [p.caption.split(",")[0] for p in pairs[:4]] == ["A", "B", "A", "B"]
    assert pairs[0].path.name == pairs[1].path.name
    assert pairs[0].path != pairs[1].path
    scores = [float(p.caption.split(",")[0]) for p in evaluations.pictures(both[0], None, "ours", "strict_cosine")]
    assert scores == sorted(scores)
    assert evaluations.pictures(both[0], None, "real_photo", "shape") == []


def test_an_image_outside_of_the_evaluation_is_not_shown(both: tuple[Results, Results], tmp_path: Path) -> None:
    first, _ = both
    (tmp_path / "secret.png").write_bytes((first.folder / "images/0.png").read_bytes())
    rows = [{**r, "image": "../../../secret.png"} for r in first.rows]
    (first.folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluations.pictures(read_results(first.folder), None, "ours", "shape") == []


def test_evaluations_of_other_protocols_are_not_compared(both: tuple[Results, Results], tmp_path: Path) -> None:
    write(tmp_path / "out/third", protocol="g")
    with pytest.raises(TamingError, match=r"are of different protocols: seed is f and g\. Evaluate both"):
        evaluations.table(both[0], read_results(tmp_path / "out/third"), "ours")
