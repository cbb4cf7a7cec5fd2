"""The page of `taming studio`: a tab for each page function, and the server of this machine alone."""

import os
import sys
import webbrowser
from contextlib import suppress
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

# Before gradio is imported, which asks for its newest version and reports its use otherwise.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from taming_core.studio import security
from taming_core.studio.data_page import data_page
from taming_core.studio.evaluate_page import evaluate_page
from taming_core.studio.places import CACHE
from taming_core.studio.train_page import train_page
from taming_core.studio.try_page import end_drawings, try_page

PAGES = {
    "Data": data_page,
    "Train": train_page,
    "Try": try_page,
    "Evaluate": evaluate_page,
}  # in the order of the journey
HOST = "127.0.0.1"
PATIENCE = 20.0  # seconds for a sampling step, when the studio ends
MAX_UPLOAD = "64mb"  # of one file
STYLE = Path(__file__).with_name("page.css")


def build(project: Path) -> gr.Blocks:
    """The page over a project, whose first tab is Try as long as it has no rows and no run."""
    with gr.Blocks(title=f"{project.name} – taming", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f"<h1>{escape(project.name)}</h1>", elem_id="heading", padding=False)
        with gr.Tabs(selected=first_page(project)):
            for name, build_page in PAGES.items():
                with gr.Tab(name, id=name):
                    build_page(project)
    return page


def first_page(project: Path) -> str:
    """The tab that is open at first: Try in a folder without data, where a photo can be tried at once."""
    return next(iter(PAGES)) if (project / "data/objects.parquet").exists() else "Try"


def theme() -> Any:
    """Plain, with the fonts of the system: others would be fetched."""
    system = ["system-ui", "sans-serif"]
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="sm", font=system, font_mono=["ui-monospace", "monospace"]
    )


def head() -> str:
    """The style of the page; gradio would rewrite what is given to it as CSS, and break its selectors."""
    return f"<style>{STYLE.read_text(encoding='utf-8')}</style>"


def serve(folder: Path, port: int, browser: bool) -> None:
    """Serve the page of a project until Ctrl-C.

    The process works in the project's folder, as its commands do, and keeps what it shows below it.

    Args:
        folder: of the project.
        port: of this machine.
        browser: whether to open the page in a browser.
    """
    project = folder.resolve()
    os.chdir(project)
    os.environ["GRADIO_TEMP_DIR"] = str(project / CACHE)
    os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), HOST)))  # gradio asks itself
    page = build(project)
    page.queue(default_concurrency_limit=None)
    page.launch(
        server_name=HOST, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
        mcp_server=False, pwa=False, enable_monitoring=False, run_history=False, footer_links=[],
        max_file_size=MAX_UPLOAD, theme=theme(), head=head(), app_kwargs={"middleware": security.middleware()},
    )  # fmt: skip
    address = f"http://{HOST}:{port}"
    print(f"{address} shows {project}; Ctrl-C ends it", flush=True)
    if browser:
        webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        Event().wait()
    end_drawings(PATIENCE)
    sys.stdout.flush()
    os._exit(0)  # a thread that still computes, as for a mask, would abort the usual way out
