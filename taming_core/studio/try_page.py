"""The tab Try: photos of an object, prompts, images; `drawing` draws them, and loads torch at first use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from taming_core.images import records
from taming_core.params.load import load_params
from taming_core.studio.messages import errors_on_page
from taming_core.studio.places import IMAGES
from taming_core.studio.try_controls import (
    ARRANGEMENTS,
    EVERY,
    Controls,
    build_controls,
    build_prompts,
    on,
    params_of,
    wanted,
)
from taming_core.studio.try_cutouts import DEVICE, build_cutouts, connect_cutouts

MAX_SHOWN = 24  # images in the gallery
PROGRESS = gr.Progress()
_stopped = set[str]()  # sessions that asked to stop
_ending, _idle = Event(), Event()  # whether the studio ends, and whether no image is being drawn
_idle.set()


def try_page(project: Path) -> None:
    """Build the tab, and what happens on a click.

    Raises:
        TamingError: the project's params are wrong.
    """
    p = load_params(params_of(project))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            photos = gr.File(
                label="Photos of an object: drop them here",
                file_count="multiple", file_types=["image", ".heic", ".heif", ".avif", ".jxl"], height=132,
                elem_id="photos",
            )  # fmt: skip
            cutouts = build_cutouts(p.detect)
            arrangement = gr.Radio(
                list(ARRANGEMENTS.items()), value="one object", label="The photos show", visible=False
            )
            prompts = build_prompts(arrangement)
            with gr.Row():
                start = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", visible=False, elem_id="stop")
            controls = build_controls(project, p.generate.sampling, cutouts.found, cutouts.masks, arrangement, prompts)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML("", elem_id="status", elem_classes="status", padding=False)
            gallery = gr.Gallery(
                value=shown, label="Images, the last drawn first", show_label=False, columns=3, fit_columns=False,
                object_fit="contain", interactive=False, buttons=["fullscreen"], elem_id="images", height="auto",
            )  # fmt: skip
            with gr.Column(visible=False) as details:
                with gr.Row():
                    download = gr.DownloadButton("Download PNG", size="md", elem_id="download")
                    reuse = gr.Button("Use as reference", size="md", elem_id="reuse")
                about = gr.HTML("", elem_id="about", elem_classes="facts")
    chosen = gr.State("")  # the file of the selected image

    connect_cutouts(cutouts, photos, controls)
    drawing = on(
        [start.click, controls.prompts.submit],
        lambda: (gr.Button(interactive=False), gr.Button(visible=True)), None, [start, stop], queue=False,
    ).then(
        drawer(controls), set(controls), [gallery, status], concurrency_id=DEVICE, concurrency_limit=1,
        show_progress="full", show_progress_on=status,
    )  # fmt: skip
    for ended in (drawing.success, drawing.failure):
        ended(lambda: (gr.Button(interactive=True), gr.Button(visible=False)), None, [start, stop], queue=False)
    stop.click(stop_drawing, None, [start, stop, status], cancels=[drawing], queue=False)
    gallery.select(tell_about, None, [details, about, download, chosen], show_progress="hidden", **EVERY)
    reuse.click(add_reference, [photos, chosen], photos, queue=False)


def drawer(controls: Controls) -> Callable[..., Iterator[tuple[Any, str]]]:
    """The handler that draws what the controls say, and shows each image when it is there."""

    def draw(
        values: Mapping[Any, Any], request: gr.Request, progress: Any = PROGRESS
    ) -> Iterator[tuple[list[tuple[str, str]], str]]:
        from taming_core.studio import drawing

        session = str(request.session_hash)
        _stopped.discard(session)
        with errors_on_page():
            todo = wanted(Controls(*(values[c] for c in controls)))
            steps, done = todo.settings.sampling.steps, 0

            def on_step(step: int) -> bool:
                progress((step, steps), desc=f"{done} images drawn" if done else "Drawing", unit="steps")
                return session in _stopped or _ending.is_set()

            progress(None, desc="Loading")
            _idle.clear()
            try:
                for drawn in drawing.draw(todo, on_step):
                    done = drawn.number
                    yield shown(), f"{drawn.number} of {drawn.count} images drawn"
            finally:
                _idle.set()

    return draw


def end_drawings(seconds: float) -> None:
    """Stop every drawing after its current sampling step, and wait for that, at most so many seconds."""
    _ending.set()
    _idle.wait(seconds)


def stop_drawing(request: gr.Request) -> tuple[Any, ...]:
    """Stop after the current sampling step; images that are complete stay."""
    _stopped.add(str(request.session_hash))
    return gr.Button(interactive=True), gr.Button(visible=False), "Stopped"


def shown() -> list[tuple[str, str]]:
    """The newest images with prompt and seed."""
    made = records.newest(IMAGES, MAX_SHOWN)
    return [(str(IMAGES / name), f"{entry.get('prompt')}, seed {entry.get('seed')}") for name, entry in made]


def tell_about(event: gr.SelectData) -> tuple[Any, ...]:
    """What the selected image was made with."""
    name = Path(event.value["image"]["path"]).name
    path, entry = IMAGES / name, records.read_records(IMAGES)[name]
    return gr.Column(visible=True), made_with(entry), gr.DownloadButton(value=str(path)), str(path)


def made_with(entry: Mapping[str, Any]) -> str:
    """The record of an image as a table (HTML)."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts(entry))
    return f"<table>{rows}</table>"


def facts(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an image was made with, in words.

    >>> facts({"objects": ["a/robot.png"], "prompt": "a <object>", "seed": 1, "sampling": {"steps": 9}, "size": None})
    [('prompt', 'a <object>'), ('seed', '1'), ('objects', 'robot.png'), ('steps', '9')]
    """
    sampling = entry.get("sampling", {})
    named = {
        "prompt": entry.get("prompt"), "negative prompt": entry.get("negative_prompt"), "seed": entry.get("seed"),
        "objects": ", ".join(Path(path).name for path in entry.get("objects", [])),
        "encoder": entry.get("encoder", {}).get("folder"),
        **{name.replace("_", " "): value for name, value in sampling.items() if name != "batch_size"},
        "object scale": entry.get("object_scale"), "size": entry.get("size"), "precision": entry.get("precision"),
    }  # fmt: skip
    return [(name, str(value)) for name, value in named.items() if value not in (None, "")]


def add_reference(files: Sequence[str] | None, chosen: str) -> list[str]:
    """The uploaded photos and the selected image."""
    return [*(files or []), chosen]
