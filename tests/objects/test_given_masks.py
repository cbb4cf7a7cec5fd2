"""Objects by masks that lie beside photos, or in their alpha channel."""

from pathlib import Path

import numpy as np
import pytest
from coloured_photos import P, put, rows_of
from PIL import Image

from taming_core import drop_reasons
from taming_core.objects.filters import Detections, Masks
from taming_core.photos.decode import read_photo
from taming_core.photos.mask_files import read_mask
from taming_core.photos.masks import decode_mask
from taming_core.tables import schema

BALL = (10, 10, 60, 60)


def see(photos):
    """A detector that finds one ball: all that is red."""
    masks = [photo[..., 0] > 200 for photo in photos]
    spots = [np.argwhere(mask)[:, ::-1] for mask in masks]
    boxes = [np.array([[*s.min(0), *(s.max(0) + 1)]] if len(s) else [], np.float32).reshape(-1, 4) for s in spots]
    return [Detections(b, np.full(len(b), 0.8, np.float32), ("ball",) * len(b), m[None][: len(b)])
            for b, m in zip(boxes, masks, strict=True)]  # fmt: skip


def boxed(photo, boxes):
    """A segmenter whose masks are the whole photo."""
    return Masks(np.ones((len(boxes), *photo.shape[:2]), bool), np.full(len(boxes), 0.75, np.float32))


def rows(folder: Path, segment=None):
    return rows_of(folder, see, segment, P)


def mask(*box: int, size: tuple[int, int] = (100, 80), value: int = 255) -> Image.Image:
    picture = Image.new("L", size)
    picture.paste(value, box)
    return picture


def test_a_mask_beside_a_photo_replaces_the_segmenter(tmp_path):
    put(tmp_path / "toy/0.png", ball=BALL, leaf=(65, 10, 95, 60))
    mask(20, 12, 60, 60).save(tmp_path / "toy/0-masklabel.png")
    (row,) = rows(tmp_path, boxed)
    schema.table([row], schema.OBJECTS)
    assert (row["file_name"], row["identity"], row["class"], row["drop_reason"]) == ("toy/0.png", "toy", "ball", None)
    assert (row["mask_source"], row["mask_quality"], row["box_xyxy"]) == ("given", None, [20, 12, 60, 60])
    assert decode_mask(row["mask_png"]).sum() == 40 * 48
    assert row["score"] == pytest.approx(0.8)


def test_where_masks_come_from_is_told(tmp_path):
    put(tmp_path / "0.png", ball=BALL)
    assert [r["mask_source"] for r in (*rows(tmp_path), *rows(tmp_path, boxed))] == ["detector", "segmenter"]
    put(tmp_path / "0.png", leaf=(0, 0, 5, 5))
    assert [r["mask_source"] for r in rows(tmp_path, boxed)] == [None]


def test_what_no_detection_overlaps_has_the_class_that_is_given(tmp_path):
    put(tmp_path / "0.png", ball=BALL)
    mask(40, 40, 90, 75).save(tmp_path / "0_mask.png")
    (row,) = rows(tmp_path)
    assert (row["class"], row["score"], row["drop_reason"]) == (None, 1.0, None)
    (tmp_path / "metadata.csv").write_text("file_name,class\n0.png,rug\n")
    assert [r["class"] for r in rows(tmp_path)] == ["rug"]


def test_the_filters_hold_for_given_masks_too(tmp_path):
    put(tmp_path / "0.png", ball=BALL)
    mask(0, 10, 60, 60).save(tmp_path / "0_mask.png")
    assert [r["drop_reason"] for r in rows(tmp_path)] == ["cut off: left"]


def test_a_photo_that_is_cut_out_has_its_own_mask(tmp_path):
    put(tmp_path / "0.png", ball=BALL)
    photo = Image.open(tmp_path / "0.png")
    photo.putalpha(mask(10, 10, 60, 55))
    photo.save(tmp_path / "0.png")
    (row,) = rows(tmp_path, boxed)
    assert (row["mask_source"], row["class"], row["box_xyxy"]) == ("alpha", "ball", [10, 10, 60, 55])
    photo.putalpha(255)
    photo.save(tmp_path / "0.png")
    assert [r["mask_source"] for r in rows(tmp_path, boxed)] == ["segmenter"]


def test_a_cut_out_may_be_trimmed_and_round_corners_are_none(tmp_path):
    put(tmp_path / "0.png", ball=BALL)
    photo = Image.open(tmp_path / "0.png")
    photo.putalpha(mask(0, 0, 100, 40))
    photo.save(tmp_path / "0.png")
    assert [(r["mask_source"], r["drop_reason"]) for r in rows(tmp_path)] == [("alpha", None)]
    photo.putalpha(mask(2, 0, 100, 80))
    photo.save(tmp_path / "0.png")
    assert [(r["mask_source"], r["drop_reason"]) for r in rows(tmp_path)] == [("detector", None)]


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (mask(0, 0, 0, 0), "given mask is black all over: 0_mask.png"),
        (mask(1, 1, 9, 9, size=(64, 64)), "given mask has another shape: 0_mask.png is 64x64, the photo 100x80"),
        (Image.new("RGB", (100, 80), "red"), "given mask cannot be read: 0_mask.png, it has colours"),
    ],
)
def test_a_mask_that_cannot_be_used_is_a_reason(tmp_path, picture, reason):
    put(tmp_path / "0.png", ball=BALL)
    picture.save(tmp_path / "0_mask.png")
    assert [r["drop_reason"] for r in rows(tmp_path)] == [reason]


def test_a_file_that_is_no_picture_is_no_mask(tmp_path):
    put(tmp_path / "0.png", ball=BALL)
    (tmp_path / "0_mask.png").write_text("x")
    (reason,) = (r["drop_reason"] for r in rows(tmp_path))
    assert reason == f"{drop_reasons.MASK_UNREADABLE}: 0_mask.png, not an image"


def saved(path: Path, picture: Image.Image) -> Path:
    picture.save(path)
    return path


def test_masks_as_programs_write_them(tmp_path):
    put(tmp_path / "photo.png")
    photo = read_photo(tmp_path / "photo.png")
    expected = np.asarray(mask(20, 12, 60, 60)) > 0
    twice = mask(40, 24, 120, 120, size=(200, 160))
    clear = Image.new("RGBA", (100, 80))
    clear.paste((0, 0, 0, 255), (20, 12, 60, 60))
    for number, picture in enumerate(
        [mask(20, 12, 60, 60), mask(20, 12, 60, 60, value=1), twice, mask(20, 12, 60, 60).convert("1"), clear]
    ):
        found = read_mask(saved(tmp_path / f"{number}.png", picture), photo)
        assert np.array_equal(found, expected), number
