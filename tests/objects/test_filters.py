"""Which detections are kept, and the reason of every other, on masks made by hand."""

import numpy as np
import pytest
from coloured_photos import P
from PIL import Image

from taming_core.objects.filters import Object, aspect, containment, filter_reasons, measure, pixel_box, remove_islands
from taming_core.photos.masks import cutout, decode_mask, encode_mask, mask_box


def thing(box: tuple[int, int, int, int], score: float = 0.9, fill: float = 1.0, noun: str = "cat") -> Object:
    """An object in a photo of 100 x 100 whose mask fills the upper part of its box."""
    x0, y0, x1, y1 = box
    mask = np.zeros((100, 100), bool)
    mask[y0 : y0 + round((y1 - y0) * fill), x0:x1] = True
    return measure(box, score, noun, mask, quality=0.8)


def reasons(*found: Object) -> list[str | None]:
    return filter_reasons(found, 100, 100, P)


def test_a_good_object_is_kept():
    assert reasons(thing((20, 20, 60, 60))) == [None]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (thing((20, 20, 60, 60), score=0.29), "low score: 0.29"),
        (thing((20, 20, 39, 40)), "too small: 0.038"),
        (thing((2, 2, 98, 97)), "too large: 0.912"),
        (thing((5, 40, 95, 60)), "too thin: 4.50"),
        (thing((40, 5, 60, 95)), "too thin: 4.50"),
        (thing((0, 20, 40, 60)), "cut off: left"),
        (thing((20, 0, 60, 40)), "cut off: top"),
        (thing((60, 20, 100, 60)), "cut off: right"),
        (thing((20, 60, 60, 100)), "cut off: bottom"),
        (thing((20, 20, 60, 60), fill=0.5), "mask does not fill its box: 0.50"),
    ],
)
def test_each_filter_has_its_reason(found, reason):
    assert reasons(found) == [reason]


def test_values_at_the_limit_are_kept():
    assert reasons(thing((20, 20, 40, 40), score=0.3)) == [None]
    assert reasons(thing((1, 1, 99, 92))) == [None]
    assert reasons(thing((20, 20, 60, 60), fill=0.6)) == [None]


def test_an_object_without_a_mask_was_not_worth_one():
    assert reasons(Object((20, 20, 60, 60), 0.1, "cat", None, None, None, None)) == ["low score: 0.10"]


def test_an_object_inside_another():
    assert reasons(thing((20, 20, 45, 45)), thing((10, 10, 70, 70), 0.5, noun="car")) == ["inside another: car", None]
    assert reasons(thing((58, 20, 83, 45)), thing((10, 10, 70, 70), 0.5)) == [None, None]


def test_of_two_boxes_around_one_thing_the_better_score_stays():
    assert reasons(thing((20, 20, 60, 60)), thing((19, 19, 61, 61), 0.5)) == [None, "inside another: cat"]


def test_what_is_unsure_or_the_whole_scene_does_not_count_as_another():
    inner, scene = thing((20, 20, 60, 60)), thing((1, 1, 99, 98), noun="room")
    assert reasons(inner, scene) == [None, "too large: 0.951"]
    assert reasons(inner, thing((5, 5, 90, 90), score=0.1)) == [None, "low score: 0.10"]


def test_a_part_of_something_that_is_cut_off_is_dropped_too():
    assert reasons(thing((20, 20, 50, 50)), thing((0, 10, 70, 70))) == ["inside another: cat", "cut off: left"]


def test_too_many_objects_lose_the_lowest_scores():
    row = [thing((5 + 30 * i, 10, 30 + 30 * i, 35), 0.9 - 0.1 * i) for i in range(3)]
    assert reasons(*row, thing((20, 60, 60, 99), 0.5, fill=0.1)) == [
        None,
        None,
        "too many objects: over 2",
        "too small: 0.016",
    ]


def test_measure():
    found = measure((10, 10, 30, 20), 0.5, "cat", np.pad(np.ones((5, 40), bool), ((10, 85), (0, 60))), None)
    assert (found.area_fraction, found.mask_fill) == (0.02, 0.5)


def test_geometry():
    assert aspect((0, 0, 30, 10)) == 3
    assert containment((0, 0, 4, 4), (2, 2, 9, 9)) == 0.25
    assert containment((0, 0, 4, 4), (4, 0, 9, 9)) == 0
    assert pixel_box(np.array([9.5, -2, 9.7, 3.1], np.float32), 10, 10) == (9, 0, 10, 4)
    assert pixel_box(np.array([12, 12, 14, 14], np.float32), 10, 10) == (9, 9, 10, 10)


def test_masks_survive_the_png():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 13), (64, 48)):
        mask = rng.random(shape) > 0.5
        assert np.array_equal(decode_mask(encode_mask(mask)), mask)
    assert len(encode_mask(np.zeros((1000, 1000), bool))) < 500


def test_specks_go_and_parts_stay():
    mask = np.zeros((60, 90), bool)
    mask[10:30, 10:30] = mask[10:30, 40:50] = True  # 400 and 200 pixels, like a bolt and its nut
    mask[40:44, 70:75] = True  # 20 pixels: the share itself is enough
    speckled = mask.copy()
    speckled[50, :19] = speckled[0, 0] = True
    assert np.array_equal(remove_islands(speckled, 0.05), mask)
    assert np.array_equal(remove_islands(speckled, 0.0), speckled)
    assert remove_islands(speckled, 0.5).sum() == 600


def test_a_piece_may_hang_by_a_corner_and_a_mask_may_be_empty():
    mask = np.zeros((30, 30), bool)
    mask[:20, :20] = mask[20, 20] = True
    assert np.array_equal(remove_islands(mask, 1.0), mask)
    assert not remove_islands(np.zeros((5, 5), bool), 0.05).any()
    assert remove_islands(np.ones((5, 5), bool), 0.05).all()


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A red disc, 60 wide, on a green ground, and its mask."""
    y, x = np.mgrid[0:120, 0:160]
    mask = (x - 80) ** 2 + (y - 50) ** 2 < 30**2
    image = np.where(mask[..., None], [200, 0, 40], [0, 255, 0]).astype(np.uint8)
    return image, mask


@pytest.mark.parametrize("size", [32, 128, 300])
def test_no_background_bleeds_into_the_cutout(size):
    found = cutout(*scene(), size=size, fill=0.9)
    assert (found.shape, found.dtype) == ((size, size, 4), np.uint8)
    seen = found[found[..., 3] > 0].astype(int)
    assert seen[:, 1].max() == 0  # no green at all, also where the edge is half transparent
    # Eight bits of premultiplied colour are coarse where the edge is all but transparent.
    assert (np.abs(seen[:, 0] - 200) <= 2 + 400 / seen[:, 3]).all()
    assert (np.abs(seen[:, 2] - 40) <= 2 + 400 / seen[:, 3]).all()
    assert (found[found[..., 3] == 0] == 0).all()


@pytest.mark.parametrize(("size", "fill"), [(128, 0.92), (64, 0.5), (256, 1.0)])
def test_the_cutout_is_centred_and_fills_its_share(size, fill):
    x0, y0, x1, y1 = mask_box(cutout(*scene(), size=size, fill=fill)[..., 3] > 127)
    assert x1 - x0 == pytest.approx(fill * size, abs=size / 30)
    assert abs((x0 + x1) - size) <= size / 30
    assert abs((y0 + y1) - size) <= size / 30


def test_a_thin_object_keeps_its_shape():
    image, mask = np.full((50, 200, 3), 90, np.uint8), np.zeros((50, 200), bool)
    mask[20:30, 20:180] = True
    x0, y0, x1, y1 = mask_box(cutout(image, mask, 160, 1.0)[..., 3] > 127)
    assert (x1 - x0, y1 - y0) == (160, 10)


def test_an_empty_mask_cannot_be_cut_out():
    with pytest.raises(ValueError, match="empty"):
        cutout(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool), 8, 1.0)


def test_a_cutout_opens_as_a_picture():
    assert Image.fromarray(cutout(*scene(), size=16, fill=1.0)).mode == "RGBA"
