"""The shape measure on real artwork: poses are forgiven, bent and other shapes are not."""

from time import process_time

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork

from taming_core.evaluation import shape
from taming_core.evaluation.shape import CanvasObject, Shape

THINGS = 6
GREY = (128, 128, 128, 255)


def view(picture: Image.Image) -> CanvasObject:
    rgba = np.asarray(picture)
    return shape.to_canvas(np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] > 127)


def posed(picture: Image.Image, degrees: float = 0, side: int = 90, flip: bool = False) -> Image.Image:
    """The thing smaller, turned clockwise, mirrored first, and not in the middle."""
    moved = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture
    moved = moved.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    moved = moved.resize((side, round(side * moved.height / moved.width)), Image.Resampling.BICUBIC)
    out = Image.new("RGBA", (200, 200))
    out.paste(moved, (60, 22))
    return out


def bent(picture: Image.Image, pixels: float) -> Image.Image:
    """Every row and column shifted along a wave."""
    y, x = np.indices((picture.height, picture.width))
    xs = np.clip(x + pixels * np.sin(2 * np.pi * y / 60), 0, picture.width - 1).astype(int)
    ys = np.clip(y + pixels * np.sin(2 * np.pi * x / 60 + 1), 0, picture.height - 1).astype(int)
    return Image.fromarray(np.asarray(picture)[ys, xs])


def compared(subject: Image.Image, found: Image.Image) -> Shape:
    return shape.compare(view(subject), view(found))


@pytest.mark.parametrize("number", range(THINGS))
def test_a_thing_agrees_with_itself(number: int) -> None:
    found = compared(artwork(THINGS)[number], artwork(THINGS)[number])
    assert found.iou > 0.97
    assert found.edges > 0.97


@pytest.mark.parametrize("number", range(THINGS))
@pytest.mark.parametrize(("degrees", "side"), [(20, 90), (-30, 70), (0, 128)])
def test_turning_scaling_and_shifting_are_forgiven(number: int, degrees: float, side: int) -> None:
    assert compared(artwork(THINGS)[number], posed(artwork(THINGS)[number], degrees, side)).agreement > 0.88


def arrow() -> Image.Image:
    """Nothing in it is symmetric."""
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[20:110, 30:55] = [200, 40, 40, 255]
    rgba[85:110, 55:105] = [40, 60, 200, 255]
    rgba[35:50, 55:75] = [240, 220, 60, 255]
    return Image.fromarray(rgba)


@pytest.mark.parametrize("degrees", [-28, -10, 0, 17, 33])
@pytest.mark.parametrize("flip", [False, True])
def test_the_pose_is_recovered(degrees: float, flip: bool) -> None:
    found = compared(arrow(), posed(arrow(), degrees, 100, flip))
    assert found.flipped == flip
    assert found.degrees == pytest.approx(degrees, abs=3)
    assert found.agreement > 0.9


def test_a_turn_beyond_reach_is_not_forgiven() -> None:
    assert compared(arrow(), posed(arrow(), 90)).agreement < 0.75


@pytest.mark.parametrize("number", range(THINGS))
def test_the_more_a_thing_is_bent_the_less_it_agrees(number: int) -> None:
    thing = artwork(THINGS)[number].resize((128, 128))
    straight, little, much = (compared(thing, bent(thing, pixels)).agreement for pixels in (0, 4, 9))
    assert straight > little > much
    assert much < 0.85


def test_other_things_agree_less_than_the_same_thing() -> None:
    things = artwork(THINGS)
    same = [compared(t, posed(t, 15)).agreement for t in things]
    other = [compared(t, posed(o, 15)).agreement for t in things for o in things if o is not t]
    assert min(same) > max(other)
    assert np.mean(other) < 0.7


def disc(marks: bool) -> Image.Image:
    """A grey disc, with a cross in it or without."""
    y, x = np.indices((128, 128)) - 64
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[x**2 + y**2 < 55**2] = [90, 90, 90, 255]
    if marks:
        rgba[(x**2 + y**2 < 45**2) & ((abs(x) < 9) | (abs(y - 15) < 9))] = [250, 220, 40, 255]
    return Image.fromarray(rgba)


def test_inner_edges_count_not_only_the_outline() -> None:
    found = compared(disc(marks=True), disc(marks=False))
    assert found.iou > 0.97
    assert found.edges < 0.85
    assert compared(disc(marks=True), posed(disc(marks=True), 20)).edges > 0.9


def test_the_ground_does_not_count() -> None:
    rgba = np.asarray(arrow())
    noisy = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    photo = np.where(rgba[..., 3:] > 0, rgba[..., :3], noisy)
    assert shape.compare(view(arrow()), shape.to_canvas(photo, rgba[..., 3] > 127)).agreement > 0.97


def test_agreement_is_the_geometric_mean() -> None:
    assert Shape(iou=0.9, edges=0.4, degrees=0, flipped=False).agreement == pytest.approx(0.6)


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_speck_is_compared_without_a_crash(pixels: int) -> None:
    mask = np.zeros((128, 128), bool)
    mask[5 : 5 + pixels, 5] = True
    found = shape.compare(view(arrow()), shape.to_canvas(np.zeros((128, 128, 3), np.uint8), mask))
    assert 0 <= found.agreement < 0.8


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        shape.to_canvas(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool))


def test_it_is_quick() -> None:
    one, other = view(artwork(2)[0]), view(artwork(2)[1])
    shape.compare(one, other)
    start = process_time()
    for _ in range(3):
        shape.compare(one, other)
    assert (process_time() - start) / 3 < 0.3  # about 0.05 on a quiet core
