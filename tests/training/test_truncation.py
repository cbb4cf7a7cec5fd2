"""Rows whose `<object>` the text encoder does not read are not trained on, and the words that are lost are said."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny

from taming_core.errors import TamingError
from taming_core.tables import schema
from taming_core.tables.rows import Rows, concatenate, load_rows
from taming_core.training import feature_cache
from taming_core.training.distributed import ProcessGroup
from taming_core.training.sampler import row_at
from taming_core.training.truncation import exclude_truncated

FAMILY = tiny.family(tiny.unet())  # reads 32 tokens
BURIED = "a dog and " * 12 + "a <object> on the beach"
TRAILING = "a <object> and a dog " + "on the beach " * 12


def captioned(folder: Path, **captions: str) -> Rows:
    """The tiny rows, some with another caption."""
    path = tiny.write_rows(folder) / "train-00000.parquet"
    rows = [{**r, "object_caption": captions.get(r["row_id"].replace("-", "_"), r["object_caption"])}
            for r in pq.read_table(path).to_pylist()]  # fmt: skip
    schema.write([schema.table(rows, schema.ROWS)], schema.add_fingerprint(schema.ROWS, "test"), path)
    return load_rows(folder, "train")


def test_captions_that_fit_change_nothing(tmp_path: Path) -> None:
    rows = captioned(tmp_path)
    assert exclude_truncated(rows, FAMILY, tiny.train_params()) == (rows, None)


def test_a_row_that_loses_its_object_is_a_view_and_no_target(tmp_path: Path) -> None:
    rows, p = captioned(tmp_path, train_0_1=BURIED), tiny.train_params(regularization=0.25)
    kept, line = exclude_truncated(rows, FAMILY, p)
    number = rows.find("train-0-1")
    assert number in {row_at(rows, n, p) for n in range(60)}
    assert {row_at(kept, n, p) for n in range(60)} == {row_at(rows, n, p) for n in range(60)} - {number}
    assert "train-0-1" in kept[kept.find("train-0-0")]["references"]
    assert line == ("1 of 9 captions are longer than the 32 tokens that the base reads, and lose their last words, "
                    'such as "a dog and a dog and a <object> on the beach"; 1 rows lose <object>, and are not trained '
                    "on.")  # fmt: skip
    assert set(feature_cache.row_share(tiny.source(kept, p), ProcessGroup())) == set(range(9))  # the tower sees it
    both = concatenate(rows, kept)
    assert len(both.objects) == 11
    assert number + len(rows) not in both.objects


def test_a_row_that_loses_other_words_is_trained_on_and_named(tmp_path: Path) -> None:
    kept, line = exclude_truncated(captioned(tmp_path, train_1_2=TRAILING), FAMILY, tiny.train_params())
    assert len(kept.objects) == 6
    assert line is not None
    assert '"the beach on' in line
    assert "not trained on" not in line


@pytest.mark.parametrize("captions", ["class_noun", "class_token"])
def test_captions_without_the_placeholder_lose_no_object(captions: str, tmp_path: Path) -> None:
    p = tiny.train_params(captions=captions, two_objects=0.0)
    assert exclude_truncated(captioned(tmp_path, train_0_1=BURIED), FAMILY, p)[1] is None


def test_rows_that_all_lose_their_object_are_an_error(tmp_path: Path) -> None:
    names = [f"train_{i}_{v}" for i in range(2) for v in range(3)]
    rows = captioned(tmp_path, **dict.fromkeys(names, BURIED))
    with pytest.raises(TamingError, match="Each caption of an object is longer than the 32 tokens"):
        exclude_truncated(rows, FAMILY, tiny.train_params())
