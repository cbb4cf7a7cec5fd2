"""The table of overrides: what is appended is read, what is undone is gone, and two writers lose nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from overridden import CUP, HAND, box_mask, object_row, photo_row

from taming_core.errors import TamingError
from taming_core.overrides import statements, table
from taming_core.photos.masks import decode_mask

ROW = object_row(0, CUP, "cup")


def test_what_is_said_is_read_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "overrides.parquet"
    said = [
        statements.reject(ROW),
        statements.with_class(ROW, " Coffee  Mug"),
        statements.with_mask(ROW, box_mask(HAND)),
    ]
    for override in said:
        table.append(path, override)
    assert table.read(path) == said
    assert [o.text for o in said] == ["reject", "coffee mug", None]
    assert np.array_equal(decode_mask(said[2].mask_png or b""), box_mask(HAND))


def test_a_table_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert table.read(None) == table.read(tmp_path / "overrides.parquet") == []
    assert table.find(tmp_path / "objects.parquet", None) is None


def test_undoing_leaves_the_bytes_of_before_and_what_was_said_before_counts(tmp_path: Path) -> None:
    path = tmp_path / "overrides.parquet"
    table.write(path, [])
    states = [path.read_bytes()]
    said = [statements.with_class(ROW, "mug"), statements.with_class(ROW, "cup"), statements.with_class(ROW, "mug")]
    for override in said:
        table.append(path, override)
        states.append(path.read_bytes())
    for override, before in zip(reversed(said), reversed(states[:-1]), strict=True):
        table.undo(path, [override])
        assert path.read_bytes() == before
    assert table.undo(path, said) == []


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "overrides.parquet"
    said = [replace(statements.with_class(ROW, "mug"), text=f"mug {n}") for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda o: table.append(path, o), said))
    assert sorted(map(str, table.read(path))) == sorted(map(str, said))
    assert [p.name for p in tmp_path.iterdir()] == ["overrides.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1 of something", "objects"])
def test_another_file_is_refused_and_stays(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "overrides.parquet"
    if isinstance(content, str):
        from overridden import write_objects

        write_objects(path, [ROW])
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(TamingError, match="no table of overrides"):
        table.append(path, statements.reject(ROW))
    assert path.read_bytes() == before


def test_the_table_to_honour_is_the_named_one_or_lies_beside_the_objects(tmp_path: Path) -> None:
    objects, beside = tmp_path / "objects.parquet", tmp_path / "overrides.parquet"
    table.write(beside, [])
    assert table.find(objects, None) == beside
    assert table.find(None, None) is None
    with pytest.raises(TamingError, match=r"There is no .*other\.parquet"):
        table.find(objects, tmp_path / "other.parquet")
    with pytest.raises(TamingError, match="no effect without a table of objects"):
        table.find(None, beside)


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (lambda: statements.with_class(ROW, " 7 "), "is no class"),
        (lambda: statements.with_class(ROW, "a <object>"), "is no class"),
        (lambda: statements.with_caption(ROW, "a photo of a cup"), "has no <object>"),
        (lambda: statements.with_caption(ROW, "<object>" * 999), "may have 2000"),
        (lambda: statements.with_mask(ROW, box_mask((0, 0, 0, 0))), "is empty"),
        (lambda: statements.added(photo_row(), box_mask((0, 0, 0, 0))), "is empty"),
        (lambda: statements.added(photo_row(photo_width=None), box_mask(CUP)), "cannot be read"),
        (lambda: statements.restore({**ROW, "mask_png": None}), "has no mask"),
    ],
)
def test_what_cannot_be_meant_is_refused(say, message: str) -> None:
    with pytest.raises(TamingError, match=message):
        say()
