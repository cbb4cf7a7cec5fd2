"""The documentation site: built without warnings, complete in itself, and read in a browser without a server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import CHROMIUM, Page, browser
from shown import DOCS, ROOT

NEEDS_BROWSER = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("REQUIRE_BROWSER"), reason="Chromium is not installed"
)


class Found(HTMLParser):
    """The anchors of a page, what it loads, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors, self.loaded, self.links = set[str](), list[str](), list[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        for name in ("src", "href"):
            if name in values:
                (self.links if tag == "a" else self.loaded).append(values[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Found]:
    return {page: Found(page) for page in site.rglob("*.html") if page.name != "404.html"}


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    wanted = {p.relative_to(DOCS).with_suffix(".html") for p in DOCS.rglob("*.md")} - {Path("README.html")}
    assert [page for page in {*wanted, Path("index.html")} if not (site / page).is_file()] == []


def inside(page: Path, url: str) -> tuple[Path, str] | None:
    """The file and the anchor of a link into the site; None for one that leads elsewhere."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return None
    return (page.parent / unquote(parts.path)).resolve() if parts.path else page, unquote(parts.fragment)


def leads(file: Path, anchor: str, pages: dict[Path, Found]) -> bool:
    """Whether a file of the site exists, and its anchor, if it is a page."""
    return file.exists() and (not anchor or file not in pages or anchor in pages[file].anchors)


def test_every_link_and_anchor_of_the_site_leads_somewhere(pages: dict[Path, Found]) -> None:
    led = [(page, url, inside(page, url)) for page, found in pages.items() for url in found.links]
    dead = [(page.name, url) for page, url, to in led if to and not leads(*to, pages)]
    assert len(led) > 2000
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Found]) -> None:
    loaded = [(page, url, inside(page, url)) for page, found in pages.items() for url in found.loaded]
    assert [
        (page.name, url) for page, url, to in loaded if not url.startswith("data:") and not (to and to[0].exists())
    ] == []


def test_styles_name_nothing_of_elsewhere(site: Path) -> None:
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert [url for url in re.findall(r"url\(([^)]*)\)", styles) if re.match(r"[\"']?(https?:)?//", url)] == []


def test_equations_are_mathml(site: Path) -> None:
    method = (site / "explanation/method.html").read_text(encoding="utf-8")
    assert method.count("<math") > 20
    assert "arithmatex" not in method
    assert "$$" not in method


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile") / "new") as page:
        yield page


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["index", "tutorials/mini", "reference/params", "explanation/method"])
def test_a_page_fits_and_asks_for_nothing(site: Path, reader: Page, name: str, width: int) -> None:
    reader.open(site / f"{name}.html", width)
    assert reader.run("document.documentElement.scrollWidth - innerWidth") <= 0
    assert [url for url in reader.requests() if not url.startswith("file:")] == []
    assert reader.complaints() == []


@NEEDS_BROWSER
def test_search_finds_a_key_without_a_server(site: Path, reader: Page) -> None:
    reader.open(site / "index.html", 1280)
    reader.run("document.querySelector('.md-search__input').focus()")
    reader.send("Input.insertText", text="cross_reference")
    shown = """new Promise(done => { const look = () => {
      const found = [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)
      found.length ? done(found) : setTimeout(look, 50) }; look() })"""
    assert any("reference/params.html" in url for url in reader.run(shown))
    assert [url for url in reader.requests() if not url.startswith("file:")] == []


@NEEDS_BROWSER
def test_equations_are_drawn(site: Path, reader: Page) -> None:
    reader.open(site / "explanation/method.html", 1280)
    assert (
        reader.run("Math.min(...[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().width))") > 2
    )
