"""The tab Evaluate in Chromium: two evaluations side by side, and from a score to its pictures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from studio.browsing import WIDTHS, in_browser, visiting
from studio.written_evaluations import write
from studios import studio

pytestmark = in_browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The studio of a project with two evaluations, of objects with hostile names, and one of another protocol."""
    folder = tmp_path_factory.mktemp("evaluate")
    write(folder / "project/data/evaluation", hostile=True)
    write(folder / "project/out/other", shift=0.2, hostile=True)
    write(folder / "project/out/third", protocol="g")
    with studio(folder / "project", folder / "log") as address:
        yield address
    assert len((folder / "log").read_text().splitlines()) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_from_a_score_of_two_evaluations_to_its_pictures(address: str, screenshots: Path, width: int) -> None:
    with visiting(address, width) as visit:
        page = visit.page
        visit.open_tab("Evaluate")
        page.get_by_text("Strict likeness", exact=True).locator("visible=true").first.wait_for()
        page.click("#second input")
        page.get_by_role("option", name="out/other", exact=True).click()
        page.get_by_text("+0.200", exact=True).locator("visible=true").first.wait_for()
        page.get_by_text("Strict likeness", exact=True).locator("visible=true").first.click()
        page.wait_for_selector("#pictures img")
        assert page.locator("#pictures .thumbnail-lg").count() == 24
        page.get_by_text("the largest differences first").wait_for()
        page.screenshot(path=screenshots / f"evaluate-{width}.png", full_page=True)
        assert page.title() == "project – taming"  # no script of a name has run
        assert visit.is_within_width()
        assert visit.outside(address) == []
        assert visit.complaints == []


def test_another_protocol_is_the_error_of_the_command(address: str) -> None:
    with visiting(address) as visit:
        page = visit.page
        visit.open_tab("Evaluate")
        page.get_by_text("Strict likeness", exact=True).locator("visible=true").first.wait_for()
        page.click("#second input")
        page.get_by_role("option", name="out/third", exact=True).click()
        said = page.get_by_text("are of different protocols: seed is f and g. Evaluate both with the same rows")
        said.wait_for()
        page.wait_for_timeout(1000)
        assert said.count() == 1  # said once


def test_the_last_of_two_clicks_is_shown(address: str) -> None:
    with visiting(address, delay=400) as visit:
        page = visit.page
        visit.open_tab("Evaluate")
        page.get_by_text("Strict likeness", exact=True).locator("visible=true").first.wait_for()
        for title in ("Likeness to the object", "Strict likeness"):
            page.get_by_text(title, exact=True).locator("visible=true").first.click()
        page.locator("#shown", has_text="Strict likeness: ").wait_for()
        for name in ("out/other", "none"):
            page.click("#second input")
            page.get_by_role("option", name=name, exact=True).click()
        page.wait_for_timeout(2500)
        assert page.get_by_text("+0.200", exact=True).locator("visible=true").count() == 0
