"""The tab Data: what became of the photos, and what a person says of it, which goes into the table of overrides."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from taming_core.errors import TamingError
from taming_core.inspection.items import Item
from taming_core.language.placeholder import OBJECT
from taming_core.overrides import statements
from taming_core.params.load import load_params
from taming_core.studio import data_pictures, data_table
from taming_core.studio.data_statements import (
    Selection,
    pointer,
    say_added,
    say_caption,
    say_class,
    say_mask,
    say_reject,
    say_restore,
    sayer,
    taker,
    undoer,
)
from taming_core.studio.data_table import ANY, ORDERS, SORTED_BY, Filters
from taming_core.studio.messages import errors_on_page
from taming_core.studio.pointing import LARGE, MODES, Pointing, first_mode
from taming_core.studio.try_controls import EVERY, LAST, on, params_of

PAGE = 24  # objects in the gallery
SKIP: Any = {"__type__": "update"}  # what `gr.skip()` returns: leaves a component as it is
# One answer at a time, and one statement, in the order of the clicks, each of which counts. Neither waits for an image
# that is being drawn.
ANSWER: dict[str, Any] = {"concurrency_id": "answer", "concurrency_limit": 1, **EVERY}
STATEMENT: dict[str, Any] = {"concurrency_id": "statement", "concurrency_limit": 1, "show_progress": "minimal", **EVERY}
QUIET: dict[str, Any] = {"show_progress": "hidden"}
# What is shown, which is of what is chosen last, however many events come before it is there.
SHOWN: dict[str, Any] = {**ANSWER, **LAST, **QUIET}
NOTHING = "<p>Choose an object. Keys: ← → to go on, x to reject, r to restore, u to undo.</p>"
KEYS = """
document.addEventListener("keydown", event => {
  const button = document.getElementById({ ArrowRight: "data-next", ArrowLeft: "data-previous", x: "data-reject",
    r: "data-restore", u: "data-undo" }[event.key] || "");
  const typing = event.target.closest("input, textarea, select, [contenteditable], [role=tab], [role=listbox]");
  if (!button || typing || event.ctrlKey || event.metaKey || event.altKey || !button.checkVisibility()) return;
  event.preventDefault();
  if (!button.disabled) button.click();
});
document.addEventListener("click", event => {  // on a phone the large picture is below the gallery
  const tile = event.target.closest("#data-gallery .thumbnail-lg");
  if (tile && innerWidth < 640) document.getElementById("data-image").scrollIntoView();
});
"""
# To the next item; if what was chosen does not fit the filters any more, to the one that took its number. In the
# browser, so that a key pressed after it is about the next item.
STEP = """(shown, chosen) => {
  if (!shown.length) return chosen;
  const place = chosen ? shown.findIndex(([file, key]) => file === chosen.file_name && key === chosen.key) : 0;
  const next = !chosen ? 0 : place < 0 ? chosen.number + Math.min(%d, 0) : place + %d;
  const number = (next + shown.length) %% shown.length;
  return { file_name: shown[number][0], key: shown[number][1], number };
}"""

# Frame the chosen one in the gallery, once its pictures are there.
MARK = """(shown, chosen) => { setTimeout(() => {
  const place = chosen ? shown.findIndex(([file, key]) => file === chosen.file_name && key === chosen.key) : -1;
  const tiles = [...document.querySelectorAll("#data-gallery .thumbnail-lg")];
  tiles.forEach((tile, n) => tile.classList.toggle("chosen", n === place));
}, 100); }"""

Place = tuple[str, str]  # file name and key of an item
Update = Any  # of a component of gradio


def data_page(project: Path) -> None:
    """Build the tab, and what happens on a click."""
    # In the browser, not states: a click is about what is chosen then, however long it has to wait.
    shown, chosen = gr.JSON([], visible=False), gr.JSON(None, visible=False)
    pointing, detect = gr.State(Pointing()), load_params(params_of(project)).detect
    with gr.Accordion("Filters", open=True, elem_id="data-filters"):
        filters = _filters()
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                status = gr.HTML("", elem_id="data-status", elem_classes="status", padding=False)
                number = gr.Number(1, label="Page", precision=0, minimum=1, min_width=90, elem_id="data-page")
            gallery = gr.Gallery(
                label="Objects", show_label=False, columns=4, object_fit="contain", allow_preview=False, buttons=[],
                interactive=False, height="auto", elem_id="data-gallery",
            )  # fmt: skip
        with gr.Column(scale=3, min_width=320):
            image = gr.Image(
                label="Object", show_label=False, interactive=False, buttons=["fullscreen"], elem_id="data-image"
            )
            with gr.Row():
                previous = gr.Button("←", elem_id="data-previous", min_width=48)
                following = gr.Button("→", elem_id="data-next", min_width=48)
                reject = gr.Button("Reject", variant="stop", elem_id="data-reject", min_width=80)
                restore = gr.Button("Restore", elem_id="data-restore", min_width=80)
                undo = gr.Button("Undo", elem_id="data-undo", min_width=80)
            with gr.Accordion("Mask: click into the picture", open=False, elem_id="data-mask"):
                mode = gr.Radio(list(MODES), value=first_mode(detect), label="A click is", elem_id="data-mode")
                with gr.Row():
                    use = gr.Button(
                        "Use this mask", variant="primary", min_width=100, interactive=False, elem_id="data-use"
                    )
                    add = gr.Button("Add as another object", min_width=100, interactive=False, elem_id="data-add")
                    again = gr.Button("Start over", min_width=100, elem_id="data-again")
            noun = gr.Textbox(label="Class", submit_btn="Save", max_length=statements.MAX_WORDS, elem_id="data-class")
            caption = gr.Textbox(
                label=f"Caption, with {OBJECT} in the place of the object", submit_btn="Save", lines=2, max_lines=4,
                max_length=statements.MAX_WORDS, elem_id="data-caption",
            )  # fmt: skip
            facts = gr.HTML(NOTHING, elem_id="data-facts", elem_classes="facts", padding=False)
            back = gr.Button("Take back all that was said of this object", elem_id="data-back", visible=False)
    gr.HTML("", js_on_load=KEYS, padding=False)

    listing = [gallery, shown, status, number, *filters[1:7], filters[9]]
    detail = [image, facts, noun, caption, back, pointing, use, add]
    refresh, tell = lister(project), teller(project)
    on(None, refresh, [number, *filters], listing, **LAST, **QUIET)
    gallery.select(pick, shown, chosen, **EVERY, **QUIET).then(tell, chosen, detail, **SHOWN)
    for button, step in ((previous, -1), (following, 1)):
        clicked = button.click(None, [shown, chosen], chosen, js=STEP % (step, step))
        clicked.then(tell, chosen, detail, **SHOWN)
    image.select(
        pointer(project), [chosen, mode, pointing], [pointing, image, use, add], **ANSWER, show_progress="minimal"
    )
    again.click(tell, chosen, detail, **SHOWN)
    said: list[tuple[Any, Callable[..., Any], list[Any]]] = [
        (reject.click, sayer(project, say_reject), [chosen]),
        (restore.click, sayer(project, say_restore), [chosen]),
        (noun.submit, sayer(project, say_class), [chosen, noun]),
        (caption.submit, sayer(project, say_caption), [chosen, caption]),
        (use.click, sayer(project, say_mask), [chosen, pointing]),
        (add.click, sayer(project, say_added), [chosen, pointing]),
        (back.click, taker(project), [chosen]),
        (undo.click, undoer(project), []),
    ]
    for event, handler, inputs in said:
        # What is shown then is what is chosen by then: a person may have gone on meanwhile.
        done = event(handler, inputs, None, **STATEMENT).success(tell, chosen, detail, **SHOWN)
        done.then(refresh, [number, *filters], listing, **LAST, **QUIET)
    on([chosen.change, shown.change], None, [shown, chosen], None, js=MARK)


def _filters() -> list[Any]:
    """The controls in the order of the fields of `Filters`."""

    def one_of(label: str, name: str) -> Any:
        return gr.Dropdown([ANY], value=ANY, label=label, min_width=120, elem_id=f"data-by-{name}")

    with gr.Row():
        of_words = [
            gr.Textbox(
                label="Text", placeholder="in captions, names", max_lines=1, min_width=160, elem_id="data-text"
            ),
            one_of("State", "state"), one_of("Class", "class"), one_of("Identity", "identity"),
            one_of("Split", "split"), one_of("A person said", "said"),
        ]  # fmt: skip
    with gr.Row():
        return [
            *of_words, one_of("Number", "number"),
            gr.Textbox(label="from", max_lines=1, min_width=80, elem_id="data-low"),
            gr.Textbox(label="to", max_lines=1, min_width=80, elem_id="data-high"),
            gr.Dropdown(list(SORTED_BY), value=SORTED_BY[0], label="Sort by", min_width=120, elem_id="data-sort"),
            gr.Dropdown(list(ORDERS), value=ORDERS[0], label="Order", min_width=120, elem_id="data-order"),
        ]  # fmt: skip


def lister(project: Path) -> Callable[..., list[Update]]:
    """The handler that shows one page of what fits the filters."""

    def refresh(number: float | None, *values: Any) -> list[Update]:
        try:
            data = data_table.load(project)
            everything = data_table.items(data)
            found = data_table.filtered(everything, Filters(*values))
        except TamingError as error:
            return [[], [], escape(str(error)), SKIP, *[SKIP] * 7]
        pages = max(-(-len(found) // PAGE), 1)
        page = min(max(int(number or 1), 1), pages)
        part = found[(page - 1) * PAGE : page * PAGE]
        rows = [data_table.choose(data, item.file_name, item.key).row for item in part]
        tiles = [(data_pictures.tile(project, row), titled(i)) for row, i in zip(rows, part, strict=True)]
        known = data_table.choices(everything)
        return [
            tiles, [(i.file_name, i.key) for i in part], counted(len(found), len(everything), pages),
            page if page != number else SKIP,
            *[offered(names, value) for names, value in zip(known, values[1:7], strict=True)],
            offered([*SORTED_BY, *known.numbers[1:]], values[9]),
        ]  # fmt: skip

    return refresh


def offered(names: Sequence[str], value: str) -> Update:
    """A list to choose from, which holds what is chosen."""
    return gr.Dropdown(choices=list(names) if value in names else [*names, value])


def counted(found: int, total: int, pages: int) -> str:
    """How many are shown.

    >>> counted(30, 131, 2)
    '30 of 131 objects and photos, on 2 pages'
    """
    return f"{found} of {total} objects and photos" + (f", on {pages} pages" if pages > 1 else "")


def titled(item: Item) -> str:
    """An item in a few words."""
    score = f" {item.numbers['score']:.2f}" if "score" in item.numbers else ""
    said = f", a person: {', '.join(item.override)}" if item.override else ""
    return f"{item.noun or item.identity or item.file_name}{score}: {item.drop_reason or 'kept'}{said}"


def pick(event: gr.SelectData, shown: Sequence[Place]) -> Selection:
    """The item whose picture was clicked."""
    number = int(event.index)
    file_name, key = shown[number]
    return {"file_name": file_name, "key": key, "number": number}


def teller(project: Path) -> Callable[..., list[Update]]:
    """The handler that shows all about the chosen object."""

    @errors_on_page()
    def tell(chosen: Selection | None) -> list[Update]:
        without_mask = [gr.Button(interactive=False)] * 2
        if chosen is None:
            return [SKIP] * 8
        if (c := data_table.find(data_table.load(project), chosen["file_name"], chosen["key"])) is None:
            # One that a person added is undone.
            return [None, NOTHING, "", "", gr.Button(visible=False), Pointing(), *without_mask]
        is_object = c.key is not None
        return [
            data_pictures.picture(project, c.row, LARGE), about(c.item),
            gr.Textbox(c.item.noun or "", interactive=is_object),
            gr.Textbox(c.item.object_caption or "", interactive=is_object),
            gr.Button(visible=c.said is not None), Pointing(), *without_mask,
        ]  # fmt: skip

    return tell


def about(item: Item) -> str:
    """What the tables say of an item (HTML)."""
    words = escape(item.object_caption or item.caption or "").replace(escape(OBJECT), f"<mark>{escape(OBJECT)}</mark>")
    numbers = {name.replace("_", " "): f"{value:.3g}" for name, value in item.numbers.items()}
    known = {
        "state": f"dropped: {item.drop_reason}" if item.drop_reason else "kept", "file": item.file_name,
        "identity": item.identity, "split": item.split, "a person said": ", ".join(item.override), **numbers,
    }  # fmt: skip
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in known.items() if v)
    return f"<p>{words}</p><table>{rows}</table>"
