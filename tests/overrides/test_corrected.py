"""The corrected table: of photos that nobody spoke of it is as it was; nothing that was said is lost in silence."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from overridden import CUP, HAND, box_mask, object_row, photo_row, write_objects

from taming_core.overrides import statements, table
from taming_core.overrides.corrected import corrected
from taming_core.tables import schema

FIRST = [object_row(0, CUP, "cup"), object_row(1, HAND, "hand")]
SECOND = [object_row(0, CUP, "jug", name="jug/0.jpg")]
COPY = [photo_row("a/copy.jpg", photo_id="mug/0.jpg", photo_width=None, drop_reason="copy of another photo: mug/0.jpg")]


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_objects(tmp_path / "objects.parquet", COPY, FIRST, SECOND)


def test_the_rest_of_the_table_is_as_it_was_and_the_file_goes_with_the_block(objects: Path, tmp_path: Path) -> None:
    overrides = tmp_path / "overrides.parquet"
    table.append(overrides, statements.reject(FIRST[1]))
    with corrected(objects, overrides, Path("captions.parquet")) as fixed:
        assert fixed.table is not None
        schema.check(pq.read_schema(fixed.table), schema.OBJECTS, fixed.table)
        rows = pq.read_table(fixed.table).to_pylist()
    before = pq.read_table(objects).to_pylist()
    before[2] |= {"drop_reason": "rejected by a person", "override": ["rejected"]}
    assert rows == before
    assert fixed.notes == [f"{overrides}: what a person said of 1 object"]
    assert not fixed.table.exists()


@pytest.mark.parametrize("said", [None, []])
def test_without_overrides_there_is_no_other_table(
    objects: Path, tmp_path: Path, said: list[table.Override] | None
) -> None:
    overrides = tmp_path / "overrides.parquet"
    if said is not None:
        table.write(overrides, said)
    with corrected(objects, overrides, Path("captions.parquet")) as fixed:
        assert fixed == (None, [])


def test_what_finds_no_object_is_named(objects: Path, tmp_path: Path) -> None:
    overrides = tmp_path / "overrides.parquet"
    gone = object_row(0, CUP, "cup", name="gone/0.jpg")
    missed = object_row(1, (0, 0, 5, 5), "cup", name="jug/0.jpg")
    table.append(overrides, statements.reject(gone), statements.with_class(missed, "can"), statements.reject(SECOND[0]))
    with corrected(objects, overrides, Path("captions.parquet")) as fixed:
        assert fixed.notes == [
            f"{overrides}: what a person said of 3 objects",
            "2 of them are kept, but no object is there any more: jug/0.jpg (class), gone/0.jpg (decision)",
        ]
    assert len(table.read(overrides)) == 3


def test_after_an_error_the_same_table_is_found_again(objects: Path, tmp_path: Path) -> None:
    overrides = tmp_path / "overrides.parquet"
    table.append(overrides, statements.with_mask(FIRST[0], box_mask(HAND)), statements.reject(SECOND[0]))
    seen = []
    for _ in range(2):
        block = corrected(objects, overrides, Path("captions.parquet"))
        path = block.__enter__().table
        assert path is not None
        seen.append((path, path.stat().st_mtime_ns))
        assert not block.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert seen[0] == seen[1]
