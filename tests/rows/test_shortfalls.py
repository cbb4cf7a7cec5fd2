"""What training and evaluation will lack is said when the rows are made, with the key or folder that mends it."""

import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from taming_core.params.load import Params, load_params
from taming_core.rows.shortfalls import shortfalls
from taming_core.tables import schema

P = load_params(Path(__file__).parents[2] / "params.yaml")


def with_values(**sections: dict[str, Any]) -> Params:
    return P.model_copy(update={n: getattr(P, n).model_copy(update=v) for n, v in sections.items()})


def said(
    folder: Path, p: Params, held_out: int = 2, views: int = 2, validation: int = 1, regularization: int = 1
) -> list[str]:
    """The lines for rows of two identities in training and `held_out` in test."""
    tiny.write_rows(folder, validation=validation, regularization=regularization)
    rows = [tiny.row(i, v, views, "test") for i in range(held_out) for v in range(views)]
    schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, folder / "test-00000.parquet")
    return list(shortfalls(folder, p))


FINE = with_values(evaluate={"objects": 2})


def test_of_rows_that_lack_nothing_nothing_is_said(tmp_path: Path) -> None:
    assert said(tmp_path, FINE) == []
    assert said(tmp_path, with_values(materialize={"validation": 0.0}, evaluate={"objects": 2}), validation=0) == []


@pytest.mark.parametrize(
    ("rows", "values", "expected"),
    [
        (
            {"regularization": 0},
            {},
            r"train.regularization is 0.25, but the rows hold no text-image pairs\. Set it to 0",
        ),
        (
            {},
            {"train": {"prior": 5}},
            r"train.prior is 5, but .*\. Set it to null, or run `taming materialize` without",
        ),
        (
            {"validation": 0},
            {},
            r"No identity is left for the split validation, .*\. Add photos of more objects, or set",
        ),
        (
            {"held_out": 0},
            {},
            r"The split test has no identities, and evaluation needs two or more\. Add photos of more",
        ),
        (
            {"held_out": 1},
            {},
            r"The split test has 1 identity, and evaluation needs two or more\. Add photos of more",
        ),
        ({}, {"evaluate": {"objects": 3}}, r"evaluate.objects is 3, and the split test has 2 identities: .*\. Add"),
        (
            {"views": 1},
            {},
            r"2 of 2 identities in the split test have one view: .*\. Add photos of them in other scenes",
        ),
        ({}, {"evaluate": {"split": "validation"}}, r"The split validation has 1 identity, and evaluation needs two"),
    ],
)
def test_what_is_lacking_is_said_in_one_line(
    rows: dict[str, int], values: dict[str, dict[str, Any]], expected: str, tmp_path: Path
) -> None:
    fine = {"evaluate": {"objects": 2}}
    lines = said(tmp_path, with_values(**{n: fine.get(n, {}) | values.get(n, {}) for n in fine | values}), **rows)
    assert len([line for line in lines if re.match(expected, line)]) == 1, lines
    assert all(line.endswith(".") and "\n" not in line for line in lines)


def test_of_rows_of_the_split_test_alone_training_is_not_spoken_of(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        schema.write([schema.table([], schema.ROWS)], schema.ROWS, tmp_path / f"{split}-00000.parquet")
    rows = [tiny.row(i, v, 2, "test") for i in range(2) for v in range(2)]
    schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, tmp_path / "test-00000.parquet")
    assert list(shortfalls(tmp_path, FINE)) == [
        "All objects are in the split test, as a benchmark's are: they are for `taming eval`, not to train on."
    ]


def test_training_identities_with_one_view_are_counted(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path, identities=3, views=1)
    lines = list(shortfalls(tmp_path, FINE))
    assert lines[0].startswith("3 of 3 identities in training have one view: it is augmented where training wants")
    without = with_values(train={"cross_reference": 0.0})
    assert not [line for line in shortfalls(tmp_path, without) if "in training" in line]
