"""What a person says in the tab Data: the handlers that mark masks, and write and undo overrides."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr

from taming_core.errors import TamingError
from taming_core.overrides import statements, table
from taming_core.photos.masks import Mask
from taming_core.studio import data_pictures, data_table
from taming_core.studio.data_table import Chosen
from taming_core.studio.messages import errors_on_page
from taming_core.studio.pointing import LARGE, Pointing, mark_of, pointed, with_marks


class Selection(TypedDict):
    """An item, and its number among those shown."""

    file_name: str
    key: str
    number: int


def pointer(project: Path) -> Callable[..., tuple[Any, ...]]:
    """The handler of a click into the large picture, which makes a mask as soon as there is enough to make one of."""

    @errors_on_page()
    def point(event: gr.SelectData, chosen: Selection | None, mode: str, pointing: Pointing) -> tuple[Any, ...]:
        c = _of(project, chosen)
        if c.row["photo_width"] is None:
            raise TamingError(f"{c.item.file_name} cannot be read. Choose another photo.")
        mark = mark_of(mode, event.index, (c.row["photo_width"], c.row["photo_height"]))
        after = pointed(pointing, c.item.key, mark, lambda marks: data_pictures.mask_at(project, c, marks))
        shown = data_pictures.picture(project, c.row, LARGE, after.mask)
        return after, with_marks(shown, after.marks), *[gr.Button(interactive=after.mask is not None)] * 2

    return point


def _of(project: Path, chosen: Selection | None) -> Chosen:
    if chosen is None:
        raise TamingError("No object is chosen. Click one in the gallery.")
    return data_table.choose(data_table.load(project), chosen["file_name"], chosen["key"])


Statement = Callable[..., list[table.Override]]


def sayer(project: Path, statement: Statement) -> Callable[..., None]:
    """The handler that writes what a person says of the chosen object."""

    @errors_on_page()
    def say(chosen: Selection | None, *values: Any) -> None:
        if said := statement(project, _of(project, chosen), *values):
            table.append(project / data_table.OBJECTS.with_name(table.NAME), *said)

    return say


def say_reject(_project: Path, c: Chosen) -> list[table.Override]:
    """The object is not used; nothing of one that is dropped already."""
    return [] if _object(c)["drop_reason"] is not None else [statements.reject(c.row, c.key)]


def say_restore(project: Path, c: Chosen) -> list[table.Override]:
    """Restored, with the mask that detection did not make of an object that its score or box dropped.

    Nothing of one that is kept.
    """
    row = _object(c)
    if row["drop_reason"] is None:
        return []
    if row["mask_png"] is not None:
        return [statements.restore(row, c.key)]
    masked = statements.with_mask(row, data_pictures.mask_of_box(project, row), c.key)
    return [masked, statements.restore({**row, "mask_png": masked.mask_png}, c.key)]


def say_class(_project: Path, c: Chosen, noun: str) -> list[table.Override]:
    """The object is of another class; nothing if it is the same."""
    return [] if noun == c.item.noun else [statements.with_class(_object(c), noun, c.key)]


def say_caption(_project: Path, c: Chosen, caption: str) -> list[table.Override]:
    """The object has another caption; nothing if it is the same."""
    return [] if caption == c.item.object_caption else [statements.with_caption(_object(c), caption, c.key)]


def say_mask(_project: Path, c: Chosen, pointing: Pointing) -> list[table.Override]:
    """The object is where the marks are."""
    return [statements.with_mask(_object(c), _marked(c, pointing), c.key)]


def say_added(_project: Path, c: Chosen, pointing: Pointing) -> list[table.Override]:
    """Another object is where the marks are."""
    return [statements.added(c.row, _marked(c, pointing))]


def _object(c: Chosen) -> data_table.Row:
    if c.key is None:
        raise TamingError(f"{c.item.file_name} shows no object. Mark one in the picture, and add it.")
    return c.row


def _marked(c: Chosen, pointing: Pointing) -> Mask:
    if pointing.mask is None or pointing.key != c.item.key:
        raise TamingError("There is no mask. Click into the picture: points on the object, or two corners of a box.")
    return pointing.mask


def taker(project: Path) -> Callable[..., None]:
    """The handler that takes back all that was said of the chosen object."""

    @errors_on_page()
    def take(chosen: Selection | None) -> None:
        data_table.take_back(data_table.load(project), _of(project, chosen))

    return take


def undoer(project: Path) -> Callable[..., None]:
    """The handler that takes back the last thing that was said of any object, and names it."""

    @errors_on_page()
    def undo() -> None:
        if (last := data_table.undo(data_table.load(project))) is None:
            raise TamingError("Nothing is left to undo. What a person says comes first.")
        words = " ".join(filter(None, (last.field, last.text)))
        gr.Info(escape(f"Undone: {words} of {last.file_name}"), title="")

    return undo
