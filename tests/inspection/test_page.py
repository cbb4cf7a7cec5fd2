"""The data page as one file, in headless Chromium: filtered, sorted, enlarged, on a phone; nothing is fetched."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, browser
from overridden import CUP, HAND, object_row, photo_row, write_objects
from PIL import Image

from taming_core.errors import TamingError
from taming_core.inspection import cards
from taming_core.inspection.album import FULL, album
from taming_core.inspection.page import Beside, html, require_page_out
from taming_core.overrides import statements
from taming_core.overrides.apply import correct
from taming_core.overrides.matching import corrections
from taming_core.photos.files import photo_id_of
from taming_core.tables import schema

REQUIRED = "REQUIRE_BROWSER" in os.environ  # .ci/run sets it, so that these tests cannot be skipped there
in_browser = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="there is no Chromium")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'.jpg"
WORDS = "a <object> & <b>an</b> </script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of four photos: one with two objects, one with a hostile name, one that cannot be read, one without."""
    folder = tmp_path_factory.mktemp("data")
    hostile = HOSTILE.replace("/", "_")
    for number, name in enumerate(("mug.png", hostile, "wall.png")):
        (folder / "raw").mkdir(exist_ok=True)
        Image.new("RGB", (100, 80), (40 * number, 90, 120)).save(folder / "raw" / name, "PNG")
    ids = {name: photo_id_of(folder / "raw" / name) for name in ("mug.png", hostile, "wall.png")}

    def on(name: str, row: dict[str, Any]) -> dict[str, Any]:
        number = (row["object_id"] or "").rpartition("-")[2]
        return {
            **row,
            "photo_id": ids[name],
            "file_name": name,
            "object_id": f"{ids[name]}-{number}" if number else None,
        }

    mug, hand = on("mug.png", object_row(0, CUP, "mug")), on("mug.png", object_row(1, HAND, "hand", score=0.9))
    odd = on(hostile, object_row(0, CUP, "<i>cup</i>", score=0.1, drop_reason="low score: 0.10", identity="<u>x</u>"))
    wall = on("wall.png", photo_row())
    gone = photo_row("gone.png", photo_width=None, drop_reason="unreadable: no such file")
    said = corrections([statements.reject(hand)])[ids["mug.png"]]
    write_objects(folder / "objects.parquet", correct([mug, hand], said).rows, [odd], [wall], [gone])
    known = {name: mug[name] for name in ("photo_id", "file_name", "object_id", "class")}
    caption = {**dict.fromkeys(schema.CAPTIONS.names), **known, "caption": "a mug", "object_caption": WORDS,
               "match_score": 0.75, "method": "override"}  # fmt: skip
    schema.write([schema.table([caption], schema.CAPTIONS)], schema.CAPTIONS, folder / "captions.parquet")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    table, _ = cards.open_table(folder / "objects.parquet")
    later = Beside(folder / "captions.parquet", folder / "rows")
    (folder / "data.html").write_text(
        html(table, range(5), folder / "raw", "objects", "5 rows", later), encoding="utf-8"
    )
    return folder / "data.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


def titles(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('.card b')].map(e => e.textContent)")


def choose(page: Page, name: str, value: str) -> None:
    page.run(f"{{ const e = document.getElementById('{name}'); e.value = '{value}'; "
             "e.dispatchEvent(new Event('input', {bubbles: true})) }")  # fmt: skip


ALL = ["mug 0.5", "hand 0.9", "<i>cup</i> 0.1", "mug", "mug"]


@in_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_width_asks_for_nothing_and_hostile_names_are_text(page: Page, made: Path, width: int) -> None:
    page.open(made, width, dark=width == 390)
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.requests() == [made.as_uri()]
    assert page.complaints() == []
    assert titles(page) == ALL
    assert page.run("document.querySelectorAll('.card i, .card u, .card p > b b, script[src]').length") == 0
    assert page.run("document.querySelector('.card mark').textContent") == "<object>"
    assert page.run("document.querySelector('.card p > span').textContent") == WORDS
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if width == 390 else "rgb(255, 255, 255)")
    page.screenshot(made.with_name(f"data-{width}.png"))


@in_browser
def test_boxes_and_masks_lie_on_the_photo(page: Page, made: Path) -> None:
    page.open(made, 1280)
    box = "document.querySelector('.card svg .box').getBoundingClientRect()"
    image = "document.querySelector('.card img').getBoundingClientRect()"
    side = page.run(f"{image}.width")
    assert page.run(f"({box}.left - {image}.left) / {side}") == pytest.approx(CUP[0] / 100, abs=0.02)
    # The photo is 100 x 80 in a square: 10 % of it are free above.
    assert page.run(f"({box}.top - {image}.top) / {side}") == pytest.approx(0.1 + CUP[1] / 100, abs=0.02)
    mask = page.run("(b => [b.width, b.height])(document.querySelector('.card svg .mask').getBBox())")
    assert mask == pytest.approx([39, 39])
    page.run("document.getElementById('outlines').click()")
    assert page.run("[...document.querySelectorAll('.card svg')].every(e => !e.checkVisibility())")


@in_browser
def test_rows_are_filtered_and_sorted(page: Page, made: Path) -> None:
    page.open(made, 1280)
    choose(page, "reason", "=kept")
    assert titles(page) == ["mug 0.5"]
    choose(page, "reason", "-")
    assert titles(page) == ALL[1:]
    choose(page, "reason", "=rejected by a person")
    assert titles(page) == ["hand 0.9"]
    choose(page, "reason", "")
    choose(page, "override", "=rejected")
    assert titles(page) == ["hand 0.9"]
    choose(page, "override", "")
    choose(page, "text", "AN</b> mug.png")
    assert titles(page) == ["mug 0.5"]
    choose(page, "text", "")
    choose(page, "number", "score")
    choose(page, "low", "0.4")
    assert titles(page) == ["mug 0.5", "hand 0.9"]
    choose(page, "low", "")
    choose(page, "number", "")
    choose(page, "sort", "score")
    assert titles(page)[:3] == ["<i>cup</i> 0.1", "mug 0.5", "hand 0.9"]
    page.run("document.getElementById('descending').click()")
    assert titles(page)[:3] == ["hand 0.9", "mug 0.5", "<i>cup</i> 0.1"]
    assert page.run("document.getElementById('count').textContent") == "5 of 5 shown"


@in_browser
def test_a_photo_opens_large_by_keyboard_and_the_arrows_turn_the_pages(page: Page, made: Path) -> None:
    page.open(made, 390)
    page.run("document.querySelector('.card a').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('dialog').open")
    about = "document.getElementById('about').textContent"
    assert page.run(about) == "mug 0.5 kept"
    assert "match score" in page.run("document.getElementById('facts').textContent")
    page.press("ArrowRight")
    assert page.run(about) == "hand 0.9 dropped: rejected by a person"
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert "unreadable" in page.run(about)
    closed = "new Promise(done => document.querySelector('dialog').addEventListener('close', () => setTimeout(done)))"
    page.run(f"window.afterClosing = {closed}, 0")  # `window.closed` is the browser's own
    page.press("Escape")
    page.run("window.afterClosing")
    assert not page.run("document.querySelector('dialog').open")
    assert page.run("document.activeElement.dataset.place") == "4"


def test_the_pictures_stay_within_their_budget() -> None:
    loads = {str(n): (lambda n=n: Image.effect_noise((512, 512), 90 + n)) for n in range(12)}
    made = album(loads, budget=60_000)
    assert sum(len(url) * 3 // 4 for url in made.urls) <= 60_000
    assert made.urls
    assert {place for place in made.places.values() if isinstance(place, str)} <= {FULL}
    assert album({"a": lambda: "unreadable"}).places == {"a": "unreadable"}


def test_only_a_page_is_replaced(tmp_path: Path, made: Path) -> None:
    require_page_out(made)
    (tmp_path / "mine.html").write_text("<p>mine", encoding="utf-8")
    with pytest.raises(TamingError, match="is another file than a data page"):
        require_page_out(tmp_path / "mine.html")
    with pytest.raises(TamingError, match=r"is no \.html file"):
        require_page_out(tmp_path / "data.png")
