"""The cut-outs of the tab Try: how the encoder sees the photos, and another cut-out where a person points."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, TypedDict

import gradio as gr

from taming_core.figures.contact_sheet import draw_outlines
from taming_core.params.sections import DetectParams
from taming_core.studio import cutouts
from taming_core.studio.cutouts import Cutout
from taming_core.studio.messages import errors_on_page
from taming_core.studio.pointing import LARGE, MODES, Pointing, first_mode, mark_of, pointed, with_marks
from taming_core.studio.try_controls import EVERY, LAST, SKIP, Controls, model_of

DEVICE = "device"  # one computation at a time
# One answer at a time, in the order of the clicks, each of which counts. They do not wait for an image that is drawn.
ANSWER: dict[str, Any] = {"concurrency_id": "cutout", "concurrency_limit": 1, **EVERY}
THEN: dict[str, Any] = {"concurrency_id": "cutout", "concurrency_limit": 1, "show_progress": "hidden", **LAST}
# In the browser, so that an image is drawn with the masks that are in use when it is asked for.
USE = "(large, masks) => large?.mask ? { ...masks, [large.key]: large.mask } : masks"
FORGET = "(large, masks) => Object.fromEntries(Object.entries(masks).filter(([key]) => key !== large?.key))"


class Large(TypedDict):
    """The photo that is shown large, and the file of the mask that is marked in it."""

    key: str
    mask: str | None


class Cutouts(NamedTuple):
    """The components."""

    found: Any
    masks: Any  # names of files by the keys of photos
    gallery: Any
    keys: Any  # of the photos in the gallery
    hint: Any
    panel: Any
    image: Any
    large: Any
    pointing: Any
    mode: Any
    use: Any
    again: Any


def build_cutouts(detect: DetectParams) -> Cutouts:
    """The gallery of cut-outs and, below it, the photo of the chosen one."""
    gallery = gr.Gallery(
        label="Cut out, as the encoder sees them", show_label=False, visible=False, columns=4, fit_columns=False,
        height=124, object_fit="contain", allow_preview=False, interactive=False, buttons=[], format="png",
        elem_id="subjects",
    )  # fmt: skip
    hint = gr.HTML("Click a cut-out to correct it.", visible=False, elem_classes="hint", padding=False)
    with gr.Accordion("Cut-out: click into the photo", visible=False, elem_id="cutout") as panel:
        image = gr.Image(
            label="Photo", show_label=False, interactive=False, buttons=["fullscreen"], elem_id="cutout-image"
        )
        mode = gr.Radio(list(MODES), value=first_mode(detect), label="A click is", elem_id="cutout-mode")
        with gr.Row():
            use = gr.Button("Use this cut-out", variant="primary", size="md", min_width=100, elem_id="cutout-use")
            again = gr.Button("Start over", size="md", min_width=100, elem_id="cutout-again")
    # JSON is in the browser, and goes with a click as it is then.
    large, keys, masks = gr.JSON(None, visible=False), gr.JSON([], visible=False), gr.JSON({}, visible=False)
    found, pointing = gr.State([]), gr.State(Pointing())
    return Cutouts(found, masks, gallery, keys, hint, panel, image, large, pointing, mode, use, again)


def connect_cutouts(parts: Cutouts, photos: Any, controls: Controls) -> None:
    """What happens when photos are dropped, and on a click."""
    model = [controls.encoder, controls.base, controls.device]
    detail = [parts.panel, parts.image, parts.large, parts.pointing, parts.use]
    shown = [parts.gallery, parts.keys, parts.hint, controls.arrangement, parts.panel]
    show: tuple[Any, ...] = show_cutouts, [parts.found, parts.masks, parts.large, *model], shown
    photos.change(
        look_at, [photos, *model], parts.found, concurrency_id=DEVICE, concurrency_limit=1, show_progress="minimal",
        show_progress_on=photos,
    ).success(*show, **THEN)  # fmt: skip
    parts.gallery.select(open_photo, [parts.keys, parts.found, parts.masks], detail, show_progress="hidden", **ANSWER)
    parts.image.select(
        point, [parts.large, parts.mode, parts.pointing, parts.found, controls.device],
        [parts.pointing, parts.image, parts.large, parts.use], show_progress="minimal", **ANSWER,
    )  # fmt: skip
    parts.use.click(None, [parts.large, parts.masks], parts.masks, js=USE).then(*show, **THEN)
    forgotten = parts.again.click(None, [parts.large, parts.masks], parts.masks, js=FORGET)
    forgotten.then(start_over, [parts.large, parts.found, parts.masks], detail, **THEN).then(*show, **THEN)


@errors_on_page()
def look_at(files: Sequence[str] | None, encoder: str, base: str, device: str) -> list[Cutout]:
    """What is found in the uploaded photos; of one without an object a message says why."""
    found, reasons = cutouts.find(files or [], model_of(encoder, base, device))
    for reason in reasons:
        gr.Warning(escape(reason), duration=None, title="")
    return found


@errors_on_page()
def show_cutouts(
    found: Sequence[Cutout], masks: Mapping[str, str], large: Large | None, encoder: str, base: str, device: str
) -> list[Any]:
    """The cut-outs with the masks in use; a photo that is not there any more is not shown large."""
    pictures = cutouts.pictures(found, masks, model_of(encoder, base, device))
    several = sum(c.reason is None or c.key in masks for c in found) > 1
    keys = [c.key for c in found]
    closed = SKIP if large is None or large["key"] in keys else gr.Accordion(visible=False)
    return [
        gr.Gallery(pictures, visible=bool(keys)), keys, gr.HTML(visible=bool(keys)), gr.Radio(visible=several), closed
    ]  # fmt: skip


def open_photo(
    event: gr.SelectData, keys: Sequence[str], found: Sequence[Cutout], masks: Mapping[str, str]
) -> list[Any]:
    """The photo of the cut-out that was clicked, large."""
    return opened(keys[int(event.index)], found, masks)


def start_over(large: Large | None, found: Sequence[Cutout], masks: Mapping[str, str]) -> list[Any]:
    """The photo that is shown large, without marks."""
    return opened("" if large is None else large["key"], found, masks)


@errors_on_page()
def opened(key: str, found: Sequence[Cutout], masks: Mapping[str, str]) -> list[Any]:
    """A photo shown large; nothing changes if it is not there any more."""
    chosen = next((c for c in found if c.key == key), None)
    if chosen is None:
        return [SKIP] * 5
    image = cutouts.large(chosen, masks)
    large = Large(key=key, mask=None)
    return [gr.Accordion(open=True, visible=True), image, large, Pointing(key), gr.Button(interactive=False)]


@errors_on_page()
def point(
    event: gr.SelectData, large: Large | None, mode: str, pointing: Pointing, found: Sequence[Cutout], device: str
) -> list[Any]:
    """One more mark in the photo that was shown at the click, and its mask as soon as there is one.

    Nothing changes if another photo was opened after the click.
    """
    chosen = next((c for c in found if large is not None and c.key == large["key"] == pointing.key), None)
    if chosen is None:
        return [SKIP] * 4
    photo, name = cutouts.read(chosen.photo), chosen.photo.name
    mark = mark_of(mode, event.index, (photo.width, photo.height))
    after = pointed(pointing, chosen.key, mark, lambda marks: cutouts.mask_at(photo, marks, name, device))
    file = None if after.mask is None else cutouts.save_mask(after.mask, photo)
    image = with_marks(draw_outlines(photo.image, after.mask, None, LARGE), after.marks)
    return [after, image, Large(key=chosen.key, mask=file), gr.Button(interactive=file is not None)]
