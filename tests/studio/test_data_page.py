"""The tab Data in Chromium: filtered, enlarged, corrected and undone, by mouse and by keyboard, on a phone too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from overridden import photo_row, write_objects
from PIL import Image
from small_rows import artwork, composed
from studio.browsing import WIDTHS, Visit, in_browser, visiting
from studios import studio

from taming_core.overrides import statements, table
from taming_core.photos.files import photo_id_of
from taming_core.photos.masks import decode_mask, encode_mask, mask_box
from taming_core.tables import schema

pytestmark = in_browser
HOSTILE = "<img src=x onerror=alert(1)>&'.png"
WORDS = "a <object> in <b>a room</b>"


def row(folder: Path, name: str, number: int, **values: Any) -> dict[str, Any]:
    """A kept object with its true mask."""
    image, mask = composed(artwork(3)[number], number)
    Image.fromarray(image).save(folder / name)
    photo_id, box = photo_id_of(folder / name), mask_box(mask)
    known = {"photo_id": photo_id, "photo_width": 128, "photo_height": 128, "identity": f"thing {number}"}
    found = {"object_id": f"{photo_id}-0", "class": "toy", "score": 0.1 + number / 10, "box_xyxy": list(box),
             "mask_png": encode_mask(mask), "area_fraction": float(mask.mean()), "drop_reason": None}  # fmt: skip
    return {**photo_row(name), **known, **found, **values}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos: an object, one that was dropped without a mask, and one of a hostile name; one has a caption."""
    folder = tmp_path_factory.mktemp("data") / "project"
    (folder / "data/raw").mkdir(parents=True)
    raw = folder / "data/raw"
    unmasked = {"drop_reason": "low score: 0.20", "mask_png": None, "area_fraction": None}
    rows = [row(raw, "a.png", 0), row(raw, "b.png", 1, **unmasked), row(raw, HOSTILE, 2)]
    write_objects(folder / "data/objects.parquet", *([r] for r in rows))
    known = {name: rows[2][name] for name in ("photo_id", "file_name", "object_id", "class")}
    caption = {**dict.fromkeys(schema.CAPTIONS.names), **known, "caption": "a toy", "object_caption": WORDS}
    schema.write([schema.table([caption], schema.CAPTIONS)], schema.CAPTIONS, folder / "data/captions.parquet")
    return folder


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    with studio(project, project.parent / "log") as address:
        yield address
    assert len((project.parent / "log").read_text().splitlines()) == 1  # no traceback, no warning


@pytest.fixture(autouse=True)
def _nothing_said(project: Path) -> None:
    table.write(overrides(project), [])


def overrides(project: Path) -> Path:
    return project / "data/overrides.parquet"


def said(project: Path) -> list[tuple[str, str | None, str]]:
    return [(o.field, o.text, o.file_name) for o in table.read(overrides(project))]


def tiles(visit: Visit, count: int) -> None:
    visit.page.wait_for_function(f"document.querySelectorAll('#data-gallery .thumbnail-lg').length === {count}")


def facts(visit: Visit, text: str) -> None:
    """Wait until the facts of the object say this."""
    visit.page.locator("#data-facts", has_text=text).wait_for()


def choose(visit: Visit, number: int, text: str) -> None:
    visit.open_tab("Data")
    tiles(visit, 3)
    visit.page.locator("#data-gallery .thumbnail-lg").nth(number).click()
    facts(visit, text)


@pytest.mark.parametrize("width", WIDTHS)
def test_objects_are_shown_with_hostile_words_as_text(address: str, screenshots: Path, width: int) -> None:
    with visiting(address, width) as visit:
        choose(visit, 2, HOSTILE)
        page = visit.page
        assert page.locator("#data-facts mark").inner_text() == "<object>"
        assert page.locator("#data-facts p").inner_text() == WORDS
        assert page.locator("#data-facts :is(img, b)").count() == 0
        page.screenshot(path=screenshots / f"data-{width}.png", full_page=True)
        assert visit.is_within_width()
        assert visit.outside(address) == []
        assert visit.complaints == []


def test_objects_are_filtered(address: str) -> None:
    with visiting(address) as visit:
        page = visit.page
        visit.open_tab("Data")
        tiles(visit, 3)
        page.fill("#data-text input, #data-text textarea", "ROOM")
        tiles(visit, 1)
        page.locator("#data-status", has_text="1 of 3").wait_for()
        page.fill("#data-text input, #data-text textarea", "")
        tiles(visit, 3)
        page.click("#data-by-state input")
        page.get_by_role("option", name="low score").click()
        tiles(visit, 1)


def test_an_object_is_rejected_restored_and_undone_by_keyboard(address: str, project: Path) -> None:
    with visiting(address) as visit:
        choose(visit, 0, "a.png")
        page = visit.page
        page.keyboard.press("x")
        facts(visit, "rejected by a person")
        page.keyboard.press("ArrowRight")
        facts(visit, "b.png")
        page.keyboard.press("r")  # which needs a mask, and makes it
        facts(visit, "restored, mask")
        assert said(project) == [
            ("decision", "reject", "a.png"), ("mask", None, "b.png"), ("decision", "restore", "b.png")
        ]  # fmt: skip
        made = table.read(overrides(project))[1].mask_png
        _, true = composed(artwork(3)[1], 1)
        mask = decode_mask(made or b"")
        assert (mask & true).sum() / (mask | true).sum() > 0.7
        page.keyboard.press("u")
        page.keyboard.press("ArrowLeft")
        facts(visit, "a.png")
        page.wait_for_function("!document.querySelector('#data-facts').innerText.includes('b.png')")
        page.click("#data-back")
        facts(visit, "kept")
        assert said(project) == [("mask", None, "b.png")]


def test_a_key_is_about_what_is_chosen_when_it_is_pressed(address: str, project: Path) -> None:
    with visiting(address) as visit:
        choose(visit, 1, "b.png")
        page = visit.page
        page.keyboard.press("r")  # which makes a mask, so that it takes longer than what follows
        page.keyboard.press("ArrowLeft")
        facts(visit, "a.png")
        page.keyboard.press("x")
        page.keyboard.press("ArrowRight")
        page.locator("#data-gallery", has_text="a person: rejected").wait_for()
        assert said(project) == [
            ("mask", None, "b.png"), ("decision", "restore", "b.png"), ("decision", "reject", "a.png")
        ]  # fmt: skip
        facts(visit, "restored, mask")
        assert "b.png" in page.locator("#data-facts").inner_text()


@pytest.mark.parametrize("delay", [0, 400])
def test_no_key_of_many_is_lost_and_the_chosen_one_is_framed(address: str, project: Path, delay: int) -> None:
    with visiting(address, delay=delay) as visit:
        choose(visit, 0, "a.png")
        page = visit.page
        for key in ("x", "ArrowRight", "x", "ArrowRight", "x"):  # the second is dropped already
            page.keyboard.press(key)
        tiles(visit, 3)
        page.wait_for_function("document.querySelectorAll('#data-gallery .thumbnail-lg')[2].matches('.chosen')")
        assert page.locator("#data-gallery .chosen").count() == 1
        facts(visit, HOSTILE)
        facts(visit, "rejected by a person")
        assert said(project) == [("decision", "reject", "a.png"), ("decision", "reject", HOSTILE)]
        page.locator("#data-class").get_by_role("button", name="Save").click()  # the class that it has
        page.keyboard.press("Escape")
        page.click("#data-undo")
        page.get_by_text(f"Undone: decision reject of {HOSTILE}").wait_for()
        assert said(project) == [("decision", "reject", "a.png")]


def test_the_last_of_many_clicks_is_shown(address: str) -> None:
    with visiting(address, delay=400) as visit:
        choose(visit, 0, "a.png")
        page = visit.page
        for button in ("#data-next", "#data-next", "#data-previous"):
            page.click(button)
        facts(visit, "b.png")
        for number in (1, 0, 2):
            page.locator("#data-gallery .thumbnail-lg").nth(number).click()
        facts(visit, HOSTILE)
        page.wait_for_timeout(1500)  # and stays
        assert HOSTILE in page.locator("#data-facts").inner_text()


def test_an_added_object_that_is_taken_back_is_shown_no_more(address: str, project: Path) -> None:
    with visiting(address) as visit:
        choose(visit, 0, "a.png")
        photo = next(schema.iter_rows(project / "data/objects.parquet", schema.OBJECTS, 1))[0]
        table.append(overrides(project), statements.added(photo, np.pad(np.ones((20, 30), bool), ((100, 8), (90, 8)))))
        page = visit.page
        page.fill("#data-text input, #data-text textarea", "a.png")
        tiles(visit, 2)
        page.locator("#data-gallery .thumbnail-lg").nth(1).click()
        facts(visit, "added")
        page.click("#data-back")
        facts(visit, "Choose an object")
        tiles(visit, 1)
        assert said(project) == []


def test_class_and_caption_are_written_and_a_caption_without_the_placeholder_is_refused(
    address: str, project: Path
) -> None:
    with visiting(address) as visit:
        choose(visit, 0, "a.png")
        page = visit.page
        page.fill("#data-class :is(input, textarea)", "Tin  Robot")
        page.locator("#data-class").get_by_role("button", name="Save").click()
        facts(visit, "class")
        assert page.input_value("#data-class :is(input, textarea)") == "tin robot"
        page.fill("#data-caption textarea", "a robot in a room")
        page.locator("#data-caption").get_by_role("button", name="Save").click()
        page.get_by_text("has no <object>").wait_for()
        page.fill("#data-caption textarea", "a <object> in a room")
        page.locator("#data-caption").get_by_role("button", name="Save").click()
        facts(visit, "class, caption")
        assert said(project) == [("class", "tin robot", "a.png"), ("caption", "a <object> in a room", "a.png")]


def test_a_mask_is_made_of_two_corners(address: str, project: Path, screenshots: Path) -> None:
    with visiting(address) as visit:
        choose(visit, 0, "a.png")
        page = visit.page
        page.get_by_text("Mask: click into the picture").click()
        assert page.get_by_label("two corners of a box").is_checked()  # all that this segmenter takes
        assert page.is_disabled("#data-use")
        page.locator("#data-image img").scroll_into_view_if_needed()
        _, true = composed(artwork(3)[0], 0)
        before = page.locator("#data-image img").get_attribute("src")
        for x, y in (mask_box(true)[:2], mask_box(true)[2:]):
            box = page.locator("#data-image img").bounding_box()
            assert box
            page.locator("#data-image img").click(position={"x": x / 128 * box["width"], "y": y / 128 * box["height"]})
            page.wait_for_function(f"document.querySelector('#data-image img').getAttribute('src') !== {before!r}")
            before = page.locator("#data-image img").get_attribute("src")
        page.screenshot(path=screenshots / "data-mask.png", full_page=True)
        page.click("#data-use")
        facts(visit, "mask")
        (override,) = table.read(overrides(project))
        mask = decode_mask(override.mask_png or b"")
        assert (mask & true).sum() / (mask | true).sum() > 0.8
        assert mask.shape == (128, 128)
        assert np.array_equal(override.box_xyxy, mask_box(true))  # which object is meant
