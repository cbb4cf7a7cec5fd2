"""Where a person points in a picture, and the mask that the segmenter of the params makes of it."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from taming_core.errors import TamingError
from taming_core.params.sections import DetectParams
from taming_core.photos.masks import Mask, Size

if TYPE_CHECKING:
    from taming_core.objects.prompted_masks import MaskPrompt, PromptedSegmenter  # imports torch

LARGE = 900  # pixels of the longer side of a picture to point into
MODES = {"on the object": "inside", "beside it": "outside", "two corners of a box": "box"}
COLOURS = {"inside": "#22c55e", "outside": "#ef4444", "box": "#ffe14d"}
_turns = Lock()  # a segmenter holds the image that it was asked about last


class Mark(NamedTuple):
    """Where a person pointed, in shares of the photo's width and height."""

    kind: str  # inside, outside, or box: a corner
    x: float
    y: float


class Pointing(NamedTuple):
    """What a person marks in the large picture of an item, and the mask that it makes."""

    key: str = ""  # of the item
    marks: tuple[Mark, ...] = ()
    mask: Mask | None = None


def first_mode(detect: DetectParams) -> str:
    """What a click is at first: a corner for mini's segmenter, which takes boxes alone."""
    return next(mode for mode, kind in MODES.items() if kind == ("box" if detect.segmenter == "mini" else "inside"))


def mark_of(mode: str, index: Sequence[int], photo: Size) -> Mark:
    """The mark of a click.

    >>> mark_of("beside it", (450, 300), (1800, 1200))
    Mark(kind='outside', x=0.5, y=0.5)

    Args:
        mode: of `MODES`.
        index: x and y in pixels of the large picture.
        photo: its width and height.
    """
    scale = LARGE / max(photo)
    x, y = (min(at / (side * scale), 1.0) for at, side in zip(index, photo, strict=True))
    return Mark(MODES[mode], x, y)


def pointed(before: Pointing, key: str, mark: Mark, make: Callable[[Sequence[Mark]], Mask | None]) -> Pointing:
    """What is marked in an item after one more click; of a first point that makes no mask, a message says why.

    Args:
        before: what was marked, in this item or another.
        key: of the item.
        mark: of the click.
        make: the mask of marks, None of too few.

    Raises:
        TamingError: the marks make no mask.
    """
    marks = (*(before.marks if before.key == key else ()), mark)
    try:
        return Pointing(key, marks, make(marks))
    except TamingError as error:
        if len(marks) > 1 or mark.kind != "inside":
            raise
        gr.Info(escape(str(error)), title="")
        return Pointing(key, marks)


def with_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """The picture with what a person pointed at; two corners make a box."""
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    if (box := box_of(marks, image.size)) is not None:
        draw.rectangle(box, outline=COLOURS["box"], width=3)
    for mark in marks:
        x, y, r = mark.x * image.width, mark.y * image.height, 6
        draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[mark.kind], outline="#000000", width=2)
    return drawn


def box_of(marks: Sequence[Mark], size: Size) -> tuple[float, float, float, float] | None:
    """The box of the last two corners in pixels of a picture; None if there are not two.

    >>> box_of([Mark("box", 0.5, 0.25), Mark("inside", 0.1, 0.1), Mark("box", 0.25, 0.75)], (100, 100))
    (25.0, 25.0, 50.0, 75.0)
    """
    corners = [(m.x * size[0], m.y * size[1]) for m in marks if m.kind == "box"]
    if len(corners) < 2:
        return None
    (x0, y0), (x1, y1) = corners[-2:]
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def mask_of(image: NDArray[np.uint8], marks: Sequence[Mark], detect: DetectParams, device: str) -> Mask | None:
    """The mask (H, W) of marks in an image (H, W, 3); None while a box has one corner.

    Raises:
        TamingError: the segmenter cannot be prompted like this.
    """
    if sum(mark.kind == "box" for mark in marks) == 1:
        return None
    from taming_core.objects.prompted_masks import MaskPrompt  # imports torch

    height, width = image.shape[:2]
    inside, outside = (
        tuple((m.x * width, m.y * height) for m in marks if m.kind == kind) for kind in ("inside", "outside")
    )
    return segment(image, MaskPrompt(inside, outside, box_of(marks, (width, height))), detect, device)


def segment(image: NDArray[np.uint8], prompt: "MaskPrompt", detect: DetectParams, device: str = "auto") -> Mask:
    """The mask (H, W) of a prompt in an image (H, W, 3), by the segmenter of the params.

    Raises:
        TamingError: the segmenter cannot be prompted like this, or is not on this machine.
    """
    with _turns:
        return _segmenter(detect.model_dump_json(), device)(image, prompt)


@lru_cache(1)
def _segmenter(detect: str, device: str) -> "PromptedSegmenter":
    """The segmenter of params (JSON), loaded once."""
    from taming_core.objects.prompted_masks import load_prompted_segmenter
    from taming_core.weights.device import pick_device

    return load_prompted_segmenter(DetectParams.model_validate_json(detect), pick_device(device))
