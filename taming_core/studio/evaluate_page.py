"""The tab Evaluate: the scores of one or two evaluations, and the pictures behind each."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from taming_core.studio.messages import errors_on_page
from taming_core.studio.try_controls import EVERY, LAST, SKIP, on

QUIET: Any = {"show_progress": "minimal"}  # queued, since errors are shown of queued events alone
NONE = ""  # no second evaluation


def evaluate_page(project: Path) -> None:
    """Build the tab; a score is chosen by a click, or by the arrows and Enter."""
    with gr.Row(equal_height=False):
        first = gr.Dropdown(label="A", elem_id="first", min_width=180)
        second = gr.Dropdown(label="B", elem_id="second", min_width=180)
        condition = gr.Dropdown(label="Drawn by", elem_id="condition", min_width=180)
    about = gr.HTML("", elem_id="evaluations", elem_classes="status", padding=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            scores = gr.Dataframe(
                headers=["Score", "A", "B", "B − A", "95 % interval", "Better"], interactive=False, elem_id="scores",
                buttons=[], wrap=True, max_height=720, visible=False,
            )  # fmt: skip
        with gr.Column(scale=2, min_width=320):
            shown = gr.HTML("", elem_id="shown", elem_classes="status", padding=False)
            gallery = gr.Gallery(
                label="Pictures of a score", show_label=False, columns=2, fit_columns=False, object_fit="contain",
                interactive=False, buttons=["fullscreen"], elem_id="pictures", height="auto", visible=False,
            )  # fmt: skip
    keys = gr.State([])  # the measures of the table's rows

    def choices() -> tuple[Any, Any, str]:
        from taming_core.studio.evaluations import folders

        found = folders(project)
        hint = "" if found else "No evaluation yet: run <code>taming eval</code>, or <code>dvc repro</code>."
        value = found[0] if found else None
        return gr.Dropdown(choices=found, value=value), gr.Dropdown(choices=[("none", NONE), *found], value=NONE), hint

    @errors_on_page()
    def compare(one: str | None, other: str, drawn_by: str | None) -> tuple[Any, ...]:
        if not one:
            return (SKIP,) * 5
        from taming_core.evaluation.comparison import read_results
        from taming_core.studio.evaluations import conditions, table

        a, b = read_results(project / one), read_results(project / other) if other else None
        named = conditions(a)
        chosen = drawn_by if drawn_by in [key for _, key in named] else named[0][1]
        rows = table(a, b, chosen)
        words = "; ".join(f"{n}: {encoder_of(r)}" for n, r in (("A", a), ("B", b)) if r is not None)
        cells = [row.cells if b else row.cells[:2] for row in rows]
        headers = ["Score", "A", "B", "B − A", "95 % interval", "Better"] if b else ["Score", "A"]
        frame = gr.Dataframe(value=cells, headers=headers, visible=bool(rows))
        return (
            gr.Dropdown(choices=named, value=chosen),
            frame,
            [row.measure for row in rows],
            escape(words),
            gr.Gallery(visible=False),
        )

    @errors_on_page()
    def show(one: str, other: str, drawn_by: str, measures: list[str], event: gr.SelectData) -> tuple[Any, str]:
        from taming_core.evaluation.comparison import read_results
        from taming_core.studio.evaluations import MEASURE, pictures

        row: Any = event.index
        key: str = measures[int(row[0])]
        a, b = read_results(project / one), read_results(project / other) if other else None
        found = pictures(a, b, drawn_by, key)
        order = "the largest differences first" if b else "the lowest first"
        words = f"{MEASURE[key].title}: {MEASURE[key].meaning}; " + (order if found else "no image has it by itself")
        items = [(str(p.path), p.caption) for p in found]
        return gr.Gallery(items, visible=bool(items), selected_index=None), escape(words)

    given, table_of = [first, second, condition], [condition, scores, keys, about, gallery]
    on(None, choices, None, [first, second, about], **QUIET).then(compare, given, table_of, **QUIET)
    for field in given:
        field.select(compare, given, table_of, **LAST, **QUIET)
    scores.select(show, [*given, keys], [gallery, shown], **EVERY, **QUIET)


def encoder_of(results: Any) -> str:
    """The encoder of an evaluation, with the start of its fingerprint."""
    encoder = results.protocol["encoder"]
    return f"{encoder['name']} {encoder['fingerprint'][:8]}"
