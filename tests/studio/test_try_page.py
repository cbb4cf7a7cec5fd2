"""The tab Try in Chromium: from a photo to images, on a wide screen and a phone, by mouse and by keyboard."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from small_rows import SIDE, artwork, composed
from studio.browsing import WIDTHS, Visit, hosts, in_browser, visiting
from studios import started, studio

from taming_core.fingerprints import digest
from taming_core.images import records
from taming_core.photos.masks import decode_mask, mask_box
from taming_core.studio import drawing
from taming_core.studio.drawing import Reference

pytestmark = in_browser
HOSTILE = "<img src=x onerror=alert(1)>&'.png"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project, with a photo of a hostile name beside it."""
    folder = tmp_path_factory.mktemp("try")
    (folder / "project").mkdir()
    for number, name in enumerate((HOSTILE, "other.png")):
        Image.fromarray(composed(artwork(2)[number], number)[0]).save(folder / name)
    return folder / "project"


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    with studio(project, project.parent / "log") as address:
        yield address
    assert len((project.parent / "log").read_text().splitlines()) == 1  # no traceback, no warning


def upload(visit: Visit, *photos: Path) -> None:
    """Drop photos, and wait for as many cut-outs."""
    visit.page.set_input_files("#photos input[type=file]", [str(photo) for photo in photos])
    visit.page.wait_for_function(f"document.querySelectorAll('#subjects img').length === {len(photos)}")


def point(visit: Visit, *marks: tuple[float, float]) -> None:
    """Click into the large photo at these pixels of it, without a pause."""
    image = visit.page.locator("#cutout-image img")
    box = image.bounding_box()
    assert box
    for x, y in marks:
        image.click(position={"x": x / SIDE * box["width"], "y": y / SIDE * box["height"]})


def images(visit: Visit) -> int:
    """The images in the gallery."""
    return visit.page.locator("#images .thumbnail-lg").count()


@pytest.mark.parametrize("width", WIDTHS)
def test_from_a_photo_to_an_image_and_how_it_was_made(
    address: str, project: Path, screenshots: Path, width: int
) -> None:
    with visiting(address, width) as visit:
        page = visit.page
        upload(visit, project.parent / HOSTILE)
        before = images(visit)
        page.fill("#prompts textarea", "a photo of a  in the snow")
        page.evaluate("document.querySelector('#prompts textarea').setSelectionRange(13, 13)")
        page.get_by_role("button", name="<object>", exact=True).click()
        assert page.input_value("#prompts textarea") == "a photo of a <object> in the snow"
        page.fill("#seed input", str(width))
        page.click("#draw")
        page.wait_for_function(f"document.querySelectorAll('#images .thumbnail-lg').length === {before + 1}")
        page.screenshot(path=screenshots / f"try-{width}.png", full_page=True)
        page.locator("#images .thumbnail-lg").first.click()
        about = page.locator("#about").inner_text
        page.wait_for_function(f"document.querySelector('#about')?.innerText.includes('{width}')")
        assert "a photo of a <object> in the snow" in about()
        assert "DPMSolverMultistepScheduler" in about()
        assert page.locator("#about img").count() == 0  # the name of the photo is text
        page.screenshot(path=screenshots / f"try-image-{width}.png", full_page=True)
        assert visit.is_within_width()
        with page.expect_download() as download:
            page.click("#download")
        (drawn,) = (project / "out/studio").glob(f"*-{width}.png")
        assert Path(download.value.path()).read_bytes() == drawn.read_bytes()
        assert visit.outside(address) == []
        assert visit.complaints == []


def test_a_cut_out_is_corrected_by_two_corners_and_drawn(address: str, project: Path, screenshots: Path) -> None:
    with visiting(address, 390) as visit:
        page = visit.page
        upload(visit, project.parent / HOSTILE)
        found, before = page.get_attribute("#subjects img", "src"), images(visit)
        page.click("#subjects .thumbnail-lg")
        page.get_by_label("two corners of a box").check()
        assert page.is_disabled("#cutout-use")
        point(visit, (10, 10), (64, 110))  # the left half of the object
        page.click("#cutout-use")
        page.wait_for_function(f"document.querySelector('#subjects img').getAttribute('src') !== {found!r}")
        page.screenshot(path=screenshots / "try-cutout.png", full_page=True)
        assert visit.is_within_width()
        page.fill("#seed input", "9000")
        page.click("#draw")
        page.wait_for_function(f"document.querySelectorAll('#images .thumbnail-lg').length === {before + 1}")
        page.click("#cutout-again")
        page.wait_for_function(f"document.querySelector('#subjects img').getAttribute('src') === {found!r}")
        assert visit.outside(address) == []
        assert visit.complaints == []
    (mask,) = (project / "runs/studio/masks").iterdir()
    assert mask_box(decode_mask(mask.read_bytes()))[2] < 80  # of an object that reaches to 100
    (entry,) = (e for e in records.read_records(project / "out/studio").values() if e["seed"] == 9000)
    drawn = drawing.subject_image(Reference(project.parent / HOSTILE, mask), "removed", "cpu")
    assert entry["subjects"] == [digest([drawn.tobytes()])]


def test_an_image_becomes_a_reference_beside_the_photo(address: str, project: Path) -> None:
    with visiting(address) as visit:
        page = visit.page
        upload(visit, project.parent / "other.png")
        page.click("#draw")
        page.wait_for_selector("#images .thumbnail-lg")
        page.locator("#images .thumbnail-lg").first.click()
        page.click("#reuse")
        page.wait_for_function("document.querySelectorAll('#subjects img').length === 2")
        assert page.get_by_label("the same object").is_checked()
        page.get_by_label("an object each, all in one image").check()
        page.get_by_role("button", name="<object:2>").wait_for()


def test_it_is_used_by_keyboard(address: str, project: Path) -> None:
    with visiting(address, 390) as visit:
        page = visit.page
        upload(visit, project.parent / "other.png")
        before = images(visit)
        page.fill("#seed input", "77")
        page.focus("#prompts textarea")
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(f"document.querySelectorAll('#images .thumbnail-lg').length === {before + 1}")
        page.locator("#images .thumbnail-lg").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#about')?.innerText.includes('77')")
        page.get_by_role("tab", name="Train").focus()
        page.keyboard.press("Enter")
        assert page.get_by_role("tab", name="Train").get_attribute("aria-selected") == "true"


def test_an_error_is_the_sentence_of_the_command(address: str) -> None:
    with visiting(address) as visit:
        visit.page.click("#draw")
        toast = visit.page.get_by_text("There is no photo. Drop one, or several, into the field for photos.")
        toast.wait_for()
        visit.page.wait_for_selector("#draw:not([disabled])")


def begin_long_drawing(visit: Visit, project: Path) -> None:
    """Draw 64 images, and wait until the first steps are done."""
    upload(visit, project.parent / "other.png")
    visit.page.fill("#seed input", "5000")
    visit.page.get_by_label("Images of each").fill("64")
    visit.page.click("#draw")
    visit.page.wait_for_function("[...document.querySelectorAll('#status')].some(e => /Drawing/.test(e.innerText))")


def test_a_long_drawing_stops(address: str, project: Path) -> None:
    with visiting(address) as visit:
        begin_long_drawing(visit, project)
        page = visit.page
        page.click("#stop")
        page.get_by_text("Stopped", exact=True).wait_for()
        page.wait_for_selector("#draw:not([disabled])")
    assert len(list((project / "out/studio").glob("*-50??.png"))) < 64


def test_the_browser_asks_no_other_machine(address: str, project: Path) -> None:
    log = project.parent / "net.json"
    with visiting(address, log=log) as visit:
        for tab in ("Train", "Evaluate", "Try"):
            visit.open_tab(tab)
        upload(visit, project.parent / "other.png")
    assert hosts(log) == {"127.0.0.1"}


def test_ctrl_c_ends_a_drawing_after_its_step(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "log") as (address, process), visiting(address) as visit:
        begin_long_drawing(visit, project)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert len((tmp_path / "log").read_text().splitlines()) == 1  # no abort, no traceback
