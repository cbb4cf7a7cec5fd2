"""The tab Train: the runs of a project, and the command that makes them."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from taming_core.errors import TamingError
from taming_core.figures.curves import TERMS
from taming_core.studio import child, runs
from taming_core.studio.messages import errors_on_page
from taming_core.studio.plot import plot
from taming_core.studio.runs import Line, Run
from taming_core.studio.try_controls import LAST, SKIP, on

SINGLE = {"learning_rate": "Learning rate", "images_per_second": "Images per second", "grad_norm": "Gradient norm"}
SECONDS = 2.0  # between two looks at the files
QUIET: Any = {"queue": False, "show_progress": "hidden"}
QUEUED: Any = {"show_progress": "hidden"}  # errors are shown of queued events alone


def train_page(project: Path) -> None:
    """Build the tab; everything that it shows is read from files, so that closing the page stops nothing."""
    with gr.Row(equal_height=False, elem_classes="bar"):
        command = gr.Dropdown(
            commands := child.commands(project), value=commands[0], label="Command", elem_id="command", scale=3,
            min_width=200,
        )  # fmt: skip
        start = gr.Button("Start", variant="primary", elem_id="start", scale=1, min_width=100)
        stop = gr.Button("Stop", elem_id="stop-command", scale=1, min_width=100)
    status = gr.HTML("", elem_id="running", elem_classes="status", padding=False)
    log = gr.Textbox(
        label="Log", lines=8, max_lines=8, interactive=False, autoscroll=True, elem_id="log", visible=False
    )
    with gr.Row(equal_height=False, elem_classes="bar"):
        chosen = gr.Dropdown(label="Run", elem_id="run", scale=3, min_width=200)
        sample = gr.Button("Sample now", elem_id="sample-now", scale=1, min_width=100)
        save = gr.Button("Save now", elem_id="save-now", scale=1, min_width=100)
    about = gr.HTML("", elem_id="run-state", elem_classes="status", padding=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            curves = gr.HTML("", elem_id="curves", elem_classes="curves", padding=False)
        with gr.Column(scale=2, min_width=320):
            at = gr.Slider(0, 1, value=0, step=1, label="Validation grid", elem_id="at", visible=False, buttons=[])
            grid = gr.Image(
                label="Validation grid", show_label=False, interactive=False, buttons=["fullscreen"], visible=False,
                elem_id="grid",
            )  # fmt: skip
    offered = gr.State([])  # names of runs
    seen = gr.State(("", 0, 0))  # run, steps and grids that are shown

    def run_of(name: str | None) -> Run | None:
        found = runs.runs(project)
        return next((run for run in found if run.name == name), None)

    def choices(name: str | None, offered: list[str]) -> tuple[Any, list[str]]:
        """The runs, of which one that has begun since the last look is chosen."""
        found = runs.runs(project)
        names = [run.name for run in found]
        begun = [run.name for run in found if offered and run.name not in offered]
        kept = name if name in names else next(iter(names), None)
        labels = [(f"{run.name}: {runs.state(run)}", run.name) for run in found]
        return gr.Dropdown(choices=labels, value=begun[0] if begun else kept), names

    def look_at_command() -> tuple[Any, Any, Any, Any]:
        running, text = child.running_command(project), child.log(project)
        words = f"<code>{escape(running)}</code> is running" if running else ""
        return (
            words,
            gr.Textbox(text, visible=bool(text)),
            gr.Button(interactive=running is None),
            gr.Button(interactive=running is not None),
        )

    def look_at_run(name: str | None, shown: tuple[str, int, int]) -> list[Any]:
        run = run_of(name)
        if run is None:
            return ["No run yet: start <code>taming train</code>, or <code>dvc repro</code>.", *[SKIP] * 4]
        lines, grids = runs.metrics(run), runs.grids(run)
        now = (run.name, len(lines), len(grids))
        drawn = SKIP if now[:2] == tuple(shown[:2]) else plots(lines)
        same_grids = (now[0], now[2]) == (shown[0], shown[2])
        pictures = [SKIP] * 2 if same_grids else [slider(grids), picture(grids, len(grids) - 1)]
        return [runs.state(run), drawn, *pictures, now]

    @errors_on_page()
    def show_grid(name: str | None, number: float) -> tuple[Any, Any]:
        run = run_of(name)
        grids = [] if run is None else runs.grids(run)
        return slider(grids, int(number)), picture(grids, int(number))

    @errors_on_page()
    def begin(name: str) -> None:
        child.start(name, project)

    @errors_on_page()
    def end() -> None:
        child.stop(project)
        gr.Info("Asked to stop. A training saves its state after the step that it is in; Start goes on.", title="")

    @errors_on_page()
    def request(name: str | None, what: Any) -> str:
        from taming_core.training.requests import ask

        run = run_of(name)
        if run is None or not run.is_training:
            raise TamingError("This run is not training. Start `taming train` first.")
        ask(run.folder, what)
        gr.Info(f"Asked to {what} after the step that it is in.", title="")
        return f"{runs.state(run)}: asked to {what} after this step"

    of_command: list[Any] = [status, log, start, stop]
    of_run: list[Any] = [about, curves, at, grid, seen]
    for trigger in (None, gr.Timer(SECONDS).tick):  # when a page is opened, and then again and again
        on(trigger, look_at_command, None, of_command, **QUIET)
        on(trigger, choices, [chosen, offered], [chosen, offered], **QUIET)
        on(trigger, look_at_run, [chosen, seen], of_run, **QUIET)
    on(
        None,
        lambda: gr.Dropdown(choices=child.commands(project), value=child.commands(project)[0]),
        None,
        command,
        **QUIET,
    )
    chosen.input(look_at_run, [chosen, seen], of_run, **LAST, **QUIET)
    at.input(show_grid, [chosen, at], [at, grid], **LAST, **QUEUED)
    start.click(begin, command, None, **QUEUED).then(look_at_command, None, of_command, **QUIET)
    stop.click(end, None, None, **QUEUED).then(look_at_command, None, of_command, **QUIET)
    for button, what in ((sample, "sample"), (save, "save")):
        button.click(request, [chosen, gr.State(what)], about, **QUEUED)


def plots(lines: Sequence[Line]) -> str:
    """The curves of a run (HTML)."""
    panels = {"Loss": TERMS, **{title: (key,) for key, title in SINGLE.items()}}
    return "".join(plot(title, {key: runs.curve(lines, key) for key in keys}) for title, keys in panels.items())


def slider(grids: list[tuple[int, Path]], number: int | None = None) -> Any:
    """The slider over the grids of a run, with the step of the one that is shown; hidden with fewer than two."""
    if not grids:
        return gr.Slider(visible=False)
    last = len(grids) - 1
    shown = last if number is None else min(number, last)
    return gr.Slider(
        maximum=max(last, 1), value=shown, visible=last > 0, label=f"Validation grid after {grids[shown][0]} steps"
    )


def picture(grids: list[tuple[int, Path]], number: int) -> Any:
    """The grid of this number, counted from 0; hidden if there is none."""
    return (
        gr.Image(str(grids[min(number, len(grids) - 1)][1]), visible=True) if grids else gr.Image(None, visible=False)
    )
