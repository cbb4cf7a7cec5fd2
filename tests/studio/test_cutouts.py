"""Cut-outs of the tab Try: found, or marked by a person in the photo that was shown at the click."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from small_rows import SIDE, artwork, composed

from taming_core.errors import TamingError
from taming_core.photos.masks import decode_mask, mask_box
from taming_core.studio import cutouts, try_cutouts
from taming_core.studio.drawing import Model, Reference
from taming_core.studio.places import MASKS
from taming_core.studio.pointing import LARGE, Mark, Pointing, with_marks

MINI = Model("mini", device="cpu")
BOX, CORNER = "two corners of a box", LARGE // 8


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A photo of an object, twice, one without an object, and a file that is no photo, in an empty project."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(composed(artwork(1)[0], 0)[0]).save("robot.png")
    Image.new("RGB", (600, 300), "gray").save("wall.png")
    Path("broken.png").write_bytes(b"\x89PNG\r\n")
    return ["robot.png", "robot.png", "wall.png", "broken.png"]


def test_a_photo_without_an_object_waits_for_a_mask_and_what_is_no_photo_is_left_out(files: list[str]) -> None:
    found, reasons = cutouts.find(files, MINI)
    assert [(c.key, c.reason is None) for c in found] == [
        ("0 robot.png", True), ("1 robot.png", True), ("0 wall.png", False)
    ]  # fmt: skip
    assert reasons[0].startswith("No object was found in wall.png.")
    assert reasons[1].startswith("broken.png is not a readable image")
    assert [caption for _, caption in cutouts.pictures(found, {}, MINI)][1:] == ["robot.png", "no object: wall.png"]
    robot, wall = Path("robot.png"), Path("wall.png")
    assert cutouts.references(found, {}) == [Reference(robot)] * 2
    masks = {"1 robot.png": "a.png", "0 wall.png": "../../b.png"}  # of the browser: a name is no path
    assert cutouts.references(found, masks) == [
        Reference(robot), Reference(robot, MASKS / "a.png"), Reference(wall, MASKS / "b.png")
    ]  # fmt: skip


def test_a_mask_has_the_size_of_its_photo_and_changes_one_cut_out(files: list[str]) -> None:
    Image.new("RGB", (4096, 1024), "gray").save("wall.png")  # more than models see
    found, _ = cutouts.find(files, MINI)
    photo = cutouts.read(found[2].photo)
    assert photo.image.shape[:2] == (512, 2048)
    mask = np.zeros((512, 2048), np.bool_)
    mask[100:200, 300:400] = True
    masks = {found[2].key: cutouts.save_mask(mask, photo)}
    assert mask_box(decode_mask((MASKS / masks[found[2].key]).read_bytes())) == pytest.approx((600, 200, 800, 400))
    shown = cutouts.pictures(found, masks, MINI)
    assert [image is c.picture for (image, _), c in zip(shown, found, strict=True)] == [True, True, False]
    assert shown[2][0].getpixel((64, 64)) == (128, 128, 128, 255)
    assert cutouts.large(found[2], masks).size == (LARGE, LARGE // 4)
    assert cutouts.large(found[2], masks) != cutouts.large(found[2], {})


def test_a_mask_without_a_pixel_is_refused(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taming_core.studio.pointing.segment", lambda image, *_: np.zeros(image.shape[:2], np.bool_))
    corners = [Mark("box", 0.1, 0.1), Mark("box", 0.2, 0.2)]
    with pytest.raises(TamingError, match=r"in wall\.png is empty\. Mark the object"):
        cutouts.mask_at(cutouts.read(Path("wall.png")), corners, "wall.png", "cpu")


def click(x: int, y: int, *values: Any) -> list[Any]:
    """The answer to a click at pixel x, y of the large picture."""
    return try_cutouts.point(gr.SelectData(None, {"index": [x, y], "value": None}), *values)


def test_clicks_add_up_in_the_photo_that_was_shown_at_the_click(files: list[str]) -> None:
    found, _ = cutouts.find(files[:2], MINI)
    _, _, large, pointing, _ = try_cutouts.opened(found[1].key, found, {})
    assert (large, pointing) == ({"key": found[1].key, "mask": None}, Pointing(found[1].key))
    pointing, _, after, use = click(CORNER, CORNER, large, BOX, pointing, found, "cpu")
    assert (pointing.marks[0].kind, after["mask"], use.interactive) == ("box", None, False)
    pointing, image, after, use = click(7 * CORNER, 7 * CORNER, large, BOX, pointing, found, "cpu")
    assert len(pointing.marks) == 2
    assert decode_mask((MASKS / after["mask"]).read_bytes()).shape == (SIDE, SIDE)
    assert (after["key"], use.interactive, image.size) == (found[1].key, True, (LARGE, LARGE))
    elsewhere = Pointing(found[0].key)  # opened after the click
    assert click(CORNER, CORNER, large, BOX, elsewhere, found, "cpu") == [try_cutouts.SKIP] * 4
    assert click(CORNER, CORNER, large, BOX, pointing, [], "cpu") == [try_cutouts.SKIP] * 4  # the photo is removed


def test_a_box_helps_where_the_segmenter_takes_no_point(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr(gr, "Info", lambda words, **_: said.append(words))
    found, _ = cutouts.find(files[:1], MINI)
    large: Any = {"key": found[0].key, "mask": None}
    pointing: Any = Pointing(found[0].key)
    for x, mode, has_mask in ((4, "on the object", False), (1, BOX, False), (7, BOX, True)):
        pointing, _, large, use = click(x * CORNER, x * CORNER, large, mode, pointing, found, "cpu")
        assert use.interactive == has_mask
    assert len(pointing.marks) == 3
    assert [words.split(".")[1] for words in said] == ["segmenter mini takes boxes, and one point is none"]


def test_what_is_drawn_needs_an_object(files: list[str]) -> None:
    found, _ = cutouts.find(files[2:3], MINI)
    with pytest.raises(TamingError, match=r"No object was found in wall\.png\. Click it below the field for photos"):
        cutouts.references(found, {})


def test_marks_are_drawn_in_their_colours_and_two_corners_make_a_box() -> None:
    blank = Image.new("RGB", (100, 100), "white")
    drawn = with_marks(blank, [Mark("inside", 0.5, 0.5), Mark("box", 0.9, 0.1), Mark("box", 0.1, 0.9)])
    colours = [drawn.getpixel(at) for at in ((50, 50), (10, 50), (50, 90), (30, 30))]
    assert colours == [(34, 197, 94), (255, 225, 77), (255, 225, 77), (255, 255, 255)]
    assert blank.getcolors() == [(10000, (255, 255, 255))]
