"""Photos of a folder to detection rows, with a detector and a segmenter made by hand."""

from pathlib import Path

import numpy as np
import pytest
from coloured_photos import COLOURS, P, put, rows_of

from taming_core.errors import TamingError
from taming_core.objects.filters import Detections, Masks
from taming_core.objects.sources import list_sources
from taming_core.photos.decode import read_photo
from taming_core.photos.folder import read_folder
from taming_core.photos.masks import decode_mask
from taming_core.photos.view_hash import difference_hash
from taming_core.tables import schema


def see(photos):
    """A detector that finds red balls and green leaves; the scores are their shares of the photo."""
    return [_seen(photo) for photo in photos]


def _seen(photo):
    masks = {noun: (np.abs(photo.astype(int) - colour).max(axis=2) < 40) for noun, colour in COLOURS.items()}
    found = sorted(((m.mean() * 2, noun, m) for noun, m in masks.items() if m.any()), key=lambda f: -f[0])
    boxes = [[*np.argwhere(m).min(0)[::-1], *(np.argwhere(m).max(0)[::-1] + 1)] for _, _, m in found]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([s for s, _, _ in found], np.float32),
        tuple(noun for _, noun, _ in found),
        np.array([m for _, _, m in found], bool).reshape(-1, *photo.shape[:2]),
    )


def boxed(photo, boxes):
    """A segmenter whose masks are the whole boxes."""
    masks = np.zeros((len(boxes), *photo.shape[:2]), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    return Masks(masks, np.full(len(boxes), 0.75, np.float32))


def rows(folder: Path, segment=None, **changes):
    p = P.model_copy(update=changes)
    return rows_of(folder, see, segment, p)


def test_every_file_has_its_row_in_order(tmp_path):
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 60), leaf=(70, 10, 90, 40))
    put(tmp_path / "toy/2.png")
    put(tmp_path / "1.png", ball=(10, 10, 60, 50))
    (tmp_path / "toy/3.png").write_bytes(b"")
    (tmp_path / "toy/4.jpg").write_text("no picture")
    (tmp_path / "toy/copy.png").write_bytes((tmp_path / "toy/1.png").read_bytes())
    found = rows(tmp_path)
    schema.table(found, schema.OBJECTS)
    assert [(r["file_name"], r["class"], r["drop_reason"]) for r in found] == [
        ("1.png", "ball", None),
        ("toy/1.png", "ball", None),
        ("toy/1.png", "leaf", "low score: 0.15"),
        ("toy/2.png", None, "no object"),
        ("toy/3.png", None, "empty file"),
        ("toy/4.jpg", None, "not an image"),
        ("toy/copy.png", None, "copy of another photo: toy/1.png"),
    ]
    assert len({r["object_id"] for r in found if r["object_id"]}) == 3
    assert all(len(r["photo_id"]) == 16 for r in found)


def test_an_object_is_measured_and_its_mask_kept(tmp_path):
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 50))
    own, segmented = rows(tmp_path)[0], rows(tmp_path, boxed)[0]
    for row in (own, segmented):
        assert row["box_xyxy"] == [10, 10, 60, 50]
        assert (row["photo_width"], row["photo_height"]) == (100, 80)
        assert row["photo_hash"] == f"{difference_hash(read_photo(tmp_path / 'toy/1.png').image):016x}"
        assert row["score"] == pytest.approx(0.5)
        assert (row["area_fraction"], row["mask_fill"]) == (0.25, 1.0)
        assert decode_mask(row["mask_png"]).sum() == 2000
    assert (own["mask_quality"], segmented["mask_quality"]) == (None, 0.75)


def test_below_the_score_nothing_is_segmented(tmp_path):
    put(tmp_path / "1.png", ball=(10, 10, 60, 60), leaf=(70, 10, 90, 40))
    asked = []

    def segment(photo, boxes):
        asked.append(len(boxes))
        return boxed(photo, boxes)

    assert [r["mask_png"] is None for r in rows(tmp_path, segment)] == [False, True]
    assert asked == [1]


def test_identity_by_folder_metadata_and_photo(tmp_path):
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 60))
    put(tmp_path / "toy/2.png", ball=(10, 10, 60, 50))
    put(tmp_path / "3.png", ball=(10, 10, 50, 50))
    assert [r["identity"] for r in rows(tmp_path)] == [None, "toy", "toy"]
    by_photo = rows(tmp_path, identity="photo")
    assert [r["identity"] for r in by_photo] == [r["photo_id"] for r in by_photo]
    (tmp_path / "metadata.csv").write_text("file_name,identity\ntoy/2.png,other toy\n3.png,third\n")
    assert [r["identity"] for r in rows(tmp_path)] == ["third", "toy", "other toy"]
    assert [r["identity"] for r in rows(tmp_path, identity="metadata")] == ["third", None, "other toy"]


def test_identity_by_metadata_needs_metadata(tmp_path):
    put(tmp_path / "1.png")
    with pytest.raises(TamingError, match=r"no metadata file in .* has a column identity"):
        list_sources(read_folder(tmp_path), "metadata")


def test_the_identity_is_the_main_objects_alone(tmp_path):
    put(tmp_path / "toy/1.png", ball=(5, 5, 50, 55), leaf=(55, 10, 95, 60))
    ball, leaf = rows(tmp_path)
    assert (ball["identity"], leaf["identity"]) == ("toy", leaf["object_id"])
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "toy/1.png", "class": "leaf", "split": "test"}')
    ball, leaf = rows(tmp_path)
    assert (ball["identity"], leaf["identity"]) == (ball["object_id"], "toy")
    assert {ball["given_split"], leaf["given_split"]} == {"test"}


def test_a_given_class_and_caption_are_taken(tmp_path):
    put(tmp_path / "toy/1.png", ball=(5, 5, 50, 55))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "toy/1.png", "class": "marble", "caption": "a marble"}')
    (row,) = rows(tmp_path)
    assert (row["class"], row["given_caption"]) == ("marble", "a marble")


def test_batches_do_not_change_the_rows(tmp_path):
    for i in range(5):
        put(tmp_path / f"{i}.png", ball=(5, 5, 50 + i, 55))
    (tmp_path / "2.png").write_bytes(b"")
    assert rows(tmp_path, batch_size=1) == rows(tmp_path, batch_size=2) == rows(tmp_path, batch_size=8)


def test_specks_of_a_mask_are_no_part_of_the_object(tmp_path):
    put(tmp_path / "toy/1.png", ball=(20, 10, 60, 60))

    def speckled(photo, boxes):
        found = boxed(photo, boxes)
        found.masks[:, 70:73, 90:93] = True
        return found

    assert np.array_equal(
        decode_mask(rows(tmp_path, speckled)[0]["mask_png"]), decode_mask(rows(tmp_path, boxed)[0]["mask_png"])
    )
    own = rows(tmp_path, speckled, island=0.0)[0]
    assert decode_mask(own["mask_png"])[70:73, 90:93].all()


def test_pictures_of_styles_are_rows_with_a_reason_and_their_split(tmp_path):
    for category in ("object", "style"):
        put(tmp_path / f"images/{category}/00.png", ball=(10, 10, 60, 60))
        (tmp_path / f"captions/{category}").mkdir(parents=True)
        (tmp_path / f"captions/{category}/00.txt").write_text("ball\nA ball in the snow\n", encoding="utf-8")
    found = rows(tmp_path)
    schema.table(found, schema.OBJECTS)
    assert [(r["identity"], r["class"], r["given_split"], r["drop_reason"]) for r in found] == [
        ("object_00_ball", "ball", "test", None),
        ("style_00_ball", None, "test", "picture of a style"),
    ]
