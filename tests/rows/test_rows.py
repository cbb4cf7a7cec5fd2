"""Crops, splits, references, and reading rows at random."""

import pickle
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taming_core.errors import TamingError
from taming_core.params.load import load_params
from taming_core.params.sections import MaterializeParams
from taming_core.photos.masks import window
from taming_core.rows.making import EMPTY_ROW
from taming_core.rows.splits import add_views, list_views, reference_finder, write_splits
from taming_core.rows.triplets import bucket, shared_box, sizes, subject, target
from taming_core.tables import schema
from taming_core.tables.rows import load_rows

P = load_params(Path(__file__).parents[2] / "params.yaml").materialize
SIDES = st.integers(1, 500)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    """A photo's width and height, and a box in it."""
    width, height = draw(SIDES), draw(SIDES)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))


def holds(start: int, end: int, low: int, high: int) -> bool:
    """Whether a crop holds the object's extent; or, where that is longer, nothing beside it."""
    return start <= low and end >= high if high - low <= end - start else low <= start and end <= high


@given(boxes(), st.sampled_from([(1, 1), (9, 7), (7, 9), (3, 1), (1, 4)]))
def test_the_crop_has_its_shape_inside_the_photo_and_holds_the_object(found: Any, shape: tuple[int, int]) -> None:
    width, height, (x0, y0, x1, y1) = found
    left, top, right, bottom = window(width, height, shape, (x0, y0, x1, y1))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    wide, high = right - left, bottom - top
    assert (wide, high)[wide < width] == (width, height)[wide < width]  # as large as can be
    assert abs(wide - high * shape[0] / shape[1]) <= max(1, shape[0] / shape[1])
    assert holds(left, right, x0, x1)
    assert holds(top, bottom, y0, y1)


@given(SIDES, SIDES)
def test_a_square_crop_is_the_shorter_side_and_without_an_object_the_centre(width: int, height: int) -> None:
    left, top, right, bottom = window(width, height, (64, 64))
    assert right - left == bottom - top == min(width, height)
    assert abs(left - (width - right)) <= 1
    assert abs(top - (height - bottom)) <= 1


def test_the_objects_of_a_photo_share_its_crop_where_they_fit() -> None:
    left, right, far = (40, 20, 60, 60), (90, 30, 130, 90), (260, 20, 290, 60)
    for own, other in ((left, right), (right, left)):
        box = shared_box(300, 200, own, [own, other], P)
        assert box == [40, 20, 130, 90]
        x0, _, x1, _ = window(300, 200, (64, 64), box)
        assert x0 <= 40 < 130 <= x1
    assert shared_box(300, 200, left, [left, far], P) == list(left)  # 250 pixels do not fit into 200
    assert shared_box(300, 200, left, [], P) == list(left)


def test_a_photo_goes_into_the_bucket_nearest_in_aspect_ratio() -> None:
    assert bucket(4000, 3000, P) == (P.size, P.size)
    some = P.model_copy(update={"size": 512, "buckets": [[512, 512], [576, 448], [448, 576], [768, 320]]})
    shapes = {(500, 500): (512, 512), (640, 480): (576, 448), (480, 640): (448, 576), (2000, 700): (768, 320)}
    assert {photo: bucket(*photo, some) for photo in shapes} == shapes
    # Nearest as a ratio: 1.134 is as far from 1 as from 1.286.
    assert bucket(1130, 1000, some) == (512, 512)
    assert bucket(1140, 1000, some) == (576, 448)


def test_image_mask_and_subject_show_the_same_place() -> None:
    photo = np.full((90, 160, 3), 30, np.uint8)
    photo[20:60, 120:150] = (200, 40, 40)
    mask = photo[..., 0] == 200
    box = (120, 20, 150, 60)
    p = P.model_copy(update={"size": 90, "subject_size": 100, "subject_fill": 0.8, "jpeg_quality": 100})
    image = decoded(target(photo, p, box)["image"])
    found = {name: decoded(value) for name, value in subject(photo, mask, p, box).items()}
    assert np.array_equal(found["mask"] == 255, mask[:, 60:150])
    assert np.abs(image[found["mask"] == 255].astype(int) - (200, 40, 40)).max() < 60  # JPEG rings at the edge
    ys, xs = np.nonzero(found["subject"][..., 3] > 127)
    assert (ys.max() - ys.min() + 1, xs.max() - xs.min() + 1) == pytest.approx((80, 60), abs=2)


def test_a_row_knows_the_size_of_its_photo_and_what_was_cut_off() -> None:
    photo = np.zeros((90, 160, 3), np.uint8)
    p = P.model_copy(update={"size": 45})  # half of the photo's height
    known = {"photo_width": 160, "photo_height": 90}
    assert sizes(160, 90, p, (120, 20, 150, 60)) == {**known, "crop_left": 30, "crop_top": 0}
    assert target(photo, p).items() >= {**known, "width": 45, "height": 45, "crop_left": 18, "crop_top": 0}.items()
    tall = p.model_copy(update={"size": 45, "buckets": [[45, 45], [90, 30]]})  # a third is cut off above and below
    assert sizes(160, 90, tall) == {**known, "crop_left": 0, "crop_top": 10}
    assert (sizes(45, 45, p)["crop_left"], sizes(45, 45, p)["crop_top"]) == (0, 0)


def decoded(picture: dict[str, Any]) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture["bytes"])))


def row(number: int, identity: str = "cup", photo: int | None = None, view: int = 0, **values: Any) -> dict[str, Any]:
    """A kept object row; `view` is its hash."""
    photo_id = f"{number if photo is None else photo:016x}"
    known = {"row_id": f"{photo_id}-{number}", "photo_id": photo_id, "file_name": f"{number}.jpg", "split": "train"}
    picture = {"bytes": bytes([number % 256]), "path": None}
    return {**EMPTY_ROW, **known, "identity": identity, "view_hash": f"{view:016x}", "image": picture, **values}


def shard(folder: Path, rows: Sequence[dict[str, Any]], number: int = 0) -> Path:
    path = folder / "shards" / f"{number:06d}.parquet"
    schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, path)
    return path


def far(i: int) -> int:
    """A hash that differs from all others in at least 8 bits."""
    return 255 << (8 * i)


def names_of(
    rows: Sequence[dict[str, Any]], asked: dict[str, Any], folder: Path, p: MaterializeParams = P
) -> list[str]:
    db = sqlite3.connect(":memory:")
    assert list(add_views(db, [shard(folder, rows)])) == [1]
    return [r.split("-")[1] for r in reference_finder(db, p)(asked)]


def test_references_are_other_views_of_the_same_identity(tmp_path: Path) -> None:
    rows = [
        row(0, view=far(0)),
        row(1, view=far(1)),
        row(2, view=far(0) ^ 0b1111),  # four bits away: a near-duplicate
        row(3, view=far(0) ^ 0b11111 << 40),  # five bits away
        row(4, view=far(2), photo=0),  # another object of the same photo
        row(5, view=far(3), identity="mug"),
        row(6, view=far(4), drop_reason="no caption"),
        row(7, view=far(5), regularization=True),
    ]
    assert names_of(rows, rows[0], tmp_path) == ["1", "3"]
    assert names_of(rows, rows[6], tmp_path) == names_of(rows, rows[7], tmp_path) == []


def test_an_identity_of_near_duplicates_has_no_references(tmp_path: Path) -> None:
    rows = [row(i, view=1 << i) for i in range(4)]
    assert [names_of(rows, r, tmp_path) for r in rows] == [[]] * 4


def test_of_many_references_some_are_drawn_and_always_the_same(tmp_path: Path) -> None:
    rows = [row(i, view=far(i % 8) ^ far((i // 8 + 1) % 8)) for i in range(40)]
    few = P.model_copy(update={"max_references": 3})
    drawn = names_of(rows, rows[0], tmp_path, few)
    assert len(set(drawn)) == 3
    assert drawn == names_of(rows, rows[0], tmp_path, few)
    assert len({tuple(names_of(rows, r, tmp_path, few)) for r in rows}) > 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards, of which the second has no training rows: 44 rows, 4 of them regularization."""
    parts = [range(40), range(40, 50), range(50, 54)]
    made = [
        shard(
            tmp_path,
            [
                row(i, f"thing {i // 4}", view=i, regularization=n == 2, split="test" if n == 1 else "train")
                for i in part
            ],
            n,
        )
        for n, part in enumerate(parts)
    ]
    db = list_views(tmp_path / "views.sqlite", made, len(made))
    assert list(write_splits(made, tmp_path / "rows", schema.ROWS, db, P)) == [1, 2, 3]
    return tmp_path / "rows"


def test_rows_are_read_in_any_order(folder: Path) -> None:
    rows = load_rows(folder, "train")
    numbers = [*range(40), *range(50, 54)]
    assert len(rows) == 44
    assert [rows[i]["image"] for i in (43, 0, 17, 39, -1)] == [bytes([numbers[i]]) for i in (43, 0, 17, 39, -1)]
    assert [r["file_name"] for r in (rows[i] for i in range(44))] == [f"{n}.jpg" for n in numbers]
    assert rows[0].keys() == set(schema.ROWS.names)
    assert rows[0]["mask"] is None
    with pytest.raises(IndexError):
        rows[44]


def test_rows_know_objects_general_and_ids(folder: Path) -> None:
    rows = load_rows(folder, "train")
    assert rows.objects.tolist() == list(range(40))
    assert rows.regularization.tolist() == [40, 41, 42, 43]
    assert [rows.find(rows[i]["row_id"]) for i in (0, 21, 43)] == [0, 21, 43]
    with pytest.raises(KeyError):
        rows.find("nobody")
    assert rows.column("identity")[4] == "thing 1"


def test_rows_travel_to_other_processes(folder: Path) -> None:
    rows = load_rows(folder, "test")
    again = pickle.loads(pickle.dumps(rows))
    assert [again[i] for i in range(10)] == [rows[i] for i in range(10)]


def test_rows_written_again_are_read_again(folder: Path) -> None:
    assert load_rows(folder, "test")[0]["caption"] is None
    new = row(7, caption="a photo of a cup", split="test")
    schema.write([schema.table([new], schema.ROWS)], schema.ROWS, folder / "test-00001.parquet")
    assert [r["caption"] for r in load_rows(folder, "test")] == ["a photo of a cup"]


def test_an_absent_split_is_empty_and_an_absent_folder_names_the_command(folder: Path) -> None:
    assert len(load_rows(folder, "validation")) == 0
    with pytest.raises(TamingError, match="Run `taming materialize` first"):
        load_rows(folder / "elsewhere", "train")


def test_rows_of_another_version_name_the_command(folder: Path) -> None:
    old = schema.ROWS.with_metadata({**schema.ROWS.metadata, b"taming.version": b"0"})
    schema.write([schema.table([row(0)], schema.ROWS)], old, folder / "train-00000.parquet")
    with pytest.raises(TamingError, match="Run `taming materialize` again"):
        load_rows(folder, "train")
