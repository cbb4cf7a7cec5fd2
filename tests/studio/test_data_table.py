"""What the tab Data reads and writes: objects of the tables with what a person said, and nothing of it twice."""

from pathlib import Path

import pytest
from overridden import CUP, HAND, box_mask, object_row, photo_row, write_objects

from taming_core.errors import TamingError
from taming_core.overrides import statements, table
from taming_core.studio import data_table
from taming_core.studio.data_table import Data, Filters

MUG, WALL = "mug/0.jpg", "wall.jpg"


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """A photo with an object, one that was dropped without a mask, and a photo without objects."""
    low = object_row(1, HAND, "hand", drop_reason="low score: 0.05", mask_png=None, area_fraction=None)
    (tmp_path / "data").mkdir()
    wall = photo_row(WALL, identity="wall")
    write_objects(tmp_path / "data/objects.parquet", [object_row(0, CUP, "cup"), low], [wall])
    return data_table.load(tmp_path)


def test_what_is_said_shows_at_once_and_is_of_one_object_with_its_mask(data: Data) -> None:
    cup = data_table.choose(data, MUG, f"{MUG}-0")
    assert cup.row["mask_png"]
    assert (cup.key, cup.said) == (CUP, None)
    table.append(data.overrides, statements.with_mask(cup.row, box_mask((40, 30, 90, 70)), cup.key))
    moved = data_table.choose(data, MUG, f"{MUG}-0")
    assert moved.item.box_xyxy == (40, 30, 90, 70)
    table.append(data.overrides, statements.with_class(moved.row, "mug", moved.key))
    assert [(i.noun, i.override) for i in data_table.items(data)][:2] == [("mug", ("mask", "class")), ("hand", ())]
    assert data_table.undo(data) == table.Override(MUG, MUG, CUP, "cup", "class", "mug", None)
    data_table.take_back(data, data_table.choose(data, MUG, f"{MUG}-0"))
    assert table.read(data.overrides) == []
    assert data_table.undo(data) is None


def test_an_added_object_is_chosen_corrected_and_taken_back(data: Data) -> None:
    photo = data_table.choose(data, WALL, WALL)
    assert photo.key is None
    table.append(data.overrides, statements.added(photo.row, box_mask(HAND)))
    added = data_table.choose(data, WALL, f"{WALL}-0")
    assert (added.key, added.item.override, added.item.identity) == (HAND, ("added",), "wall")
    table.append(data.overrides, statements.with_class(added.row, "picture", added.key))
    named = data_table.choose(data, WALL, f"{WALL}-0")
    assert (named.item.noun, named.item.override) == ("picture", ("added", "class"))
    table.append(data.overrides, statements.with_mask(named.row, box_mask(CUP), named.key))
    assert data_table.choose(data, WALL, f"{WALL}-0").item.box_xyxy == CUP
    data_table.take_back(data, named)
    assert [i.key for i in data_table.items(data)] == [f"{MUG}-0", f"{MUG}-1", WALL]
    with pytest.raises(TamingError, match="has no such object any more"):
        data_table.choose(data, WALL, f"{WALL}-0")


def test_an_object_without_a_mask_is_restored_by_one_of_a_person(data: Data) -> None:
    hand = data_table.choose(data, MUG, f"{MUG}-1")
    masked = statements.with_mask(hand.row, box_mask(HAND), hand.key)
    restored = statements.restore({**hand.row, "mask_png": masked.mask_png}, hand.key)
    table.append(data.overrides, masked, restored)
    (found,) = data_table.filtered(data_table.items(data), Filters(said="restored"))
    assert (found.key, found.drop_reason) == (f"{MUG}-1", None)


def test_a_project_without_objects_and_a_bound_that_is_no_number_are_said(tmp_path: Path, data: Data) -> None:
    with pytest.raises(TamingError, match="Run `dvc repro`"):
        data_table.load(tmp_path / "data")
    with pytest.raises(TamingError, match="'much' is no number"):
        data_table.filtered(data_table.items(data), Filters(number="score", low="much"))


def test_tables_are_read_again_after_they_are_written(tmp_path: Path, data: Data) -> None:
    assert data_table.load(tmp_path) is data
    write_objects(data.objects, [object_row(0, CUP, "cup")])
    assert len(data_table.items(data_table.load(tmp_path))) == 1
