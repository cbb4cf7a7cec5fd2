"""The report in headless Chromium: on a wide screen and a phone, by keyboard, in dark mode, offline."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser
from evaluations import evaluation, whole

from taming_core.evaluation.report.page import html

REQUIRED = "REQUIRE_BROWSER" in os.environ  # .ci/run sets it, so that these tests cannot be skipped there
pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="there is no Chromium")
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(html(whole()), encoding="utf-8")
    return file


def visible(page: Page, selector: str) -> int:
    return page.run(f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility()).length")


def focus(page: Page, selector: str) -> None:
    page.run(f"document.querySelector('{selector}').focus()")


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_width_asks_for_nothing_and_reports_no_error(page: Page, report: Path, width: int) -> None:
    page.open(report, width)
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.requests() == [report.as_uri()]
    assert page.complaints() == []
    assert page.run("[...document.images].every(i => !i.hasAttribute('src') || i.src.startsWith('data:'))")


@pytest.mark.parametrize("width", WIDTHS)
def test_hundreds_of_objects_with_hostile_names_are_text(page: Page, tmp_path: Path, width: int) -> None:
    e = evaluation(500, hostile=True)
    (tmp_path / "report.html").write_text(html(e, budget=400_000), encoding="utf-8")
    page.open(tmp_path / "report.html", width)
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run("document.title") == "Held-out objects in prompted scenes and styles"
    assert page.complaints() == []
    names = page.run("[...document.querySelectorAll('#objects tbody th bdi')].map(e => e.textContent)")
    assert names == [t.identity for t in e.subjects]


def test_the_page_follows_the_colour_scheme(page: Page, report: Path) -> None:
    def colours(dark: bool) -> list[str]:
        page.open(report, 1280, dark=dark)
        of = "getComputedStyle(document.{}).{}"
        text = of.format("querySelector('.chart text')", "fill")
        return page.run(f"[{of.format('body', 'backgroundColor')}, {of.format('body', 'color')}, {text}]")

    assert colours(False) == ["rgb(255, 255, 255)", "rgb(29, 32, 37)", "rgb(29, 32, 37)"]
    assert colours(True) == ["rgb(20, 23, 27)", "rgb(232, 234, 237)", "rgb(232, 234, 237)"]


def test_a_table_is_sorted_by_keyboard(page: Page, report: Path) -> None:
    page.open(report, 1280)
    heading = "#objects thead th:nth-child(3)"

    def column() -> list[float]:
        return page.run("[...document.querySelectorAll('#objects tbody td:nth-child(3)')].map(e => +e.dataset.value)")

    before = column()
    focus(page, f"{heading} button")
    for key, order in (("Enter", "descending"), (" ", "ascending")):
        page.press(key)
        assert page.run(f"document.querySelector('{heading}').ariaSort") == order
        assert column() == sorted(before, reverse=order == "descending")
    focus(page, "#objects thead th:first-child button")
    page.press("Enter")
    assert page.run(f"document.querySelector('{heading}').ariaSort") is None
    assert page.run("document.querySelector('#objects tbody th bdi').textContent") == "robot 0"


def test_a_picture_opens_large_by_keyboard_and_the_arrows_turn_the_pages(page: Page, report: Path) -> None:
    page.open(report, 390)
    focus(page, "#object-0 .mine a")
    page.press("Enter")
    assert page.run("document.querySelector('dialog').open")
    about = "document.getElementById('about').innerText.split('\\n')"
    assert page.run(about)[:2] == ["robot 0", "this encoder, on the beach"]
    assert "Strict likeness 0.55" in page.run(about)[2]
    assert page.run("document.getElementById('file').getAttribute('href')") == "images/ours.png"
    page.press("ArrowRight")
    assert page.run(about)[1] == "this encoder, in the snow"
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert page.run(about)[1] == "the encoder's only input"
    assert not page.run("document.getElementById('file').checkVisibility()")
    page.press("Escape")
    assert not page.run("document.querySelector('dialog').open")
    assert page.run("document.activeElement.querySelector('img').alt") == "robot 0: the encoder's only input"


@pytest.mark.parametrize("scripts", [True, False])
def test_one_prompt_stands_beside_every_method_with_and_without_scripts(
    page: Page, report: Path, scripts: bool
) -> None:
    page.open(report, 1280, scripts=scripts)
    page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert visible(page, "#object-0 figure") == 1 + 3  # the object and three prompts
    focus(page, "#ours")
    page.press("ArrowRight")
    assert page.run("document.getElementById('methods').checked")
    assert visible(page, "#object-0 figure") == 1 + 3 + 1  # ours, two baselines, a real photo
    assert visible(page, "#object-0 .prompted:not(.p0)") == 0
    focus(page, "#prompt")
    page.press("ArrowDown")
    assert page.run("document.getElementById('prompt').value") == "1"
    assert visible(page, "#object-0 .prompted:not(.p1)") == 0
    assert visible(page, "#object-0 .prompted.p1") == 3


def test_the_worst_images_are_chosen_by_a_score(page: Page, report: Path) -> None:
    page.open(report, 1280)
    assert visible(page, "ol.worst") == 1
    page.run("by.value = 'shape'; by.dispatchEvent(new Event('change'))")
    assert page.run("[...document.querySelectorAll('ol.worst:not([hidden])')].map(e => e.id)") == ["worst-shape"]
    assert page.run("[...document.querySelectorAll('#worst-shape img')].every(i => i.src.startsWith('data:'))")


def test_without_scripts_everything_but_comfort_is_there(page: Page, report: Path) -> None:
    page.open(report, 390, scripts=False)
    page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert visible(page, "ol.worst") == 1
    assert visible(page, ".by") == 0
    assert visible(page, "thead button") == 0
    assert page.run("document.querySelector('#object-0 .mine a').getAttribute('href')") == "images/ours.png"


def test_every_control_shows_that_it_has_the_focus(page: Page, report: Path) -> None:
    page.open(report, 1280)
    page.run("document.body.focus()")
    for _ in range(14):
        page.press("Tab")
        shown = "e.matches('.switch input') ? e.nextSibling : e"
        outline = page.run(f"(e => getComputedStyle({shown}).outlineStyle)(document.activeElement)")
        assert outline == "solid", page.run("document.activeElement.outerHTML.slice(0, 99)")
