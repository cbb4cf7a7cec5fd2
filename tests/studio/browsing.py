"""A studio in a real browser: Chromium by Playwright, with all that it asked for and complained about."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Page

HERE = CHROMIUM is not None and all(map(find_spec, ("gradio", "playwright")))
# .ci/run sets REQUIRE_BROWSER, so that these tests cannot be skipped there.
in_browser = pytest.mark.skipif(
    not HERE and "REQUIRE_BROWSER" not in os.environ, reason="there is no Chromium, gradio or playwright"
)
WIDTHS = (1280, 390)
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # fmt: skip
# Keys of events in the log of the network that say which page is behind them.
ASKED_BY = ("initiator", "network_anonymization_key", "network_isolation_key")
# Chromium asks for autofill on its own for every page with fields; the other is what all names outside are mapped to.
BROWSERS_OWN = {"content-autofill.googleapis.com", "~notfound"}
PATIENCE = 120_000  # milliseconds, for what a busy machine does slowly
# Every question to the server leaves so many milliseconds late, so that more than one of them is on its way.
SLOW = """{ const { fetch } = window; window.fetch = (...given) => /queue.join/.test(given[0]?.url ?? given[0])
  ? new Promise(done => setTimeout(done, %d)).then(() => fetch(...given)) : fetch(...given); }"""
# What gradio's own page says of a browser without a screen.
HARMLESS = re.compile(r"Method not implemented\.")


@dataclass
class Visit:
    """A page, and what its browser logged."""

    page: "Page"
    requests: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])

    def open_tab(self, name: str) -> None:
        """Choose a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def outside(self, address: str) -> list[str]:
        """What it asked of others."""
        return [url for url in self.requests if not url.startswith((f"{address}/", "data:", "blob:"))]

    def is_within_width(self) -> bool:
        """Whether nothing reaches beyond the right border."""
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@contextmanager
def visiting(address: str, width: int = 1280, log: Path | None = None, delay: int = 0) -> Iterator[Visit]:
    """A new page at the address.

    `log` is where Chromium writes its own log of the network, `delay` how many milliseconds each question takes longer.
    """
    from playwright.sync_api import sync_playwright

    flags = [*FLAGS, *([] if log is None else [f"--log-net-log={log}"])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.add_init_script(SLOW % delay)
        visit = Visit(page)
        page.on("request", lambda r: visit.requests.append(r.url))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("console", lambda m: _complain(visit, m))
        page.goto(address)
        page.wait_for_selector("#heading")
        yield visit
        browser.close()


def _complain(visit: Visit, message: Any) -> None:
    if message.type in ("error", "warning") and not HARMLESS.fullmatch(message.text):
        visit.complaints.append(message.text)


def hosts(log: Path) -> set[str]:
    """The hosts that Chromium's own log names as asked for or looked up by the page; the browser's own are not its."""
    events = [event["params"] for event in json.loads(log.read_text(encoding="utf-8"))["events"] if "params" in event]
    asked = [p for p in events if any("127.0.0.1" in str(p.get(key)) for key in ASKED_BY)]
    named = [str(p.get("url") or p.get("host") or "") for p in asked]
    found = (re.match(r"(?:\w+://)?(\[[^]]*\]|[^/:]+)", name) for name in named)
    return {match[1] for match in found if match} - BROWSERS_OWN
