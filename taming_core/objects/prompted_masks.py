"""A mask where a person points, by the segmenter that detection uses."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from segment_anything import SamPredictor

from taming_core.errors import TamingError
from taming_core.objects.filters import Segmenter, remove_islands
from taming_core.objects.networks import load_segmenter
from taming_core.objects.segmenter import predictor_of
from taming_core.params.sections import DetectParams
from taming_core.photos.masks import Mask

Point = tuple[float, float]  # x and y in pixels of the image


@dataclass(frozen=True)
class MaskPrompt:
    """Where a person points."""

    inside: tuple[Point, ...] = ()  # on the object
    outside: tuple[Point, ...] = ()  # beside it
    box_xyxy: tuple[float, float, float, float] | None = None  # around it


PromptedSegmenter = Callable[[NDArray[np.uint8], MaskPrompt], Mask]  # an image (H, W, 3) -> the mask (H, W)


def load_prompted_segmenter(p: DetectParams, device: str) -> PromptedSegmenter:
    """The segmenter of the params, as a callable from an image and what a person points at to a mask.

    Raises:
        TamingError: it is not on this machine, or the params use the detector's masks, which take no prompt.
    """
    segment = load_segmenter(p.segmenter, device)
    if segment is None:
        raise TamingError("detect.segmenter is detector, whose masks are those of its own boxes. Set it to a SAM, such "
                          "as sam_vit_b, to mark objects.")  # fmt: skip
    return lambda image, prompt: prompted_mask(segment, image, prompt, p)


def prompted_mask(segment: Segmenter, image: NDArray[np.uint8], prompt: MaskPrompt, p: DetectParams) -> Mask:
    """The mask (H, W) of a prompt in an image (H, W, 3), without specks.

    A published SAM takes points and a box (Kirillov et al., 2023, section 3). Another segmenter takes boxes: points on
    the edge of the object make one.

    Raises:
        TamingError: the segmenter cannot be prompted like this.
    """
    predictor = predictor_of(segment)
    mask = _of_boxes(segment, image, prompt, p) if predictor is None else _of_sam(predictor, image, prompt)
    return remove_islands(mask, p.island) if mask.any() else mask


def _of_boxes(segment: Segmenter, image: NDArray[np.uint8], prompt: MaskPrompt, p: DetectParams) -> Mask:
    if prompt.outside:
        raise TamingError(f"detect.segmenter {p.segmenter} takes boxes, and no points beside an object. Mark its edges "
                          "by two points or more, or by a box.")  # fmt: skip
    if prompt.box_xyxy is None and len(prompt.inside) < 2:
        raise TamingError(f"detect.segmenter {p.segmenter} takes boxes, and one point is none. Mark the object's edges "
                          "by two points or more, or by a box.")  # fmt: skip
    box = np.array(prompt.box_xyxy or surrounding_box(prompt.inside), np.float32)
    return segment(image, box[None]).masks[0]


def surrounding_box(points: tuple[Point, ...]) -> tuple[float, float, float, float]:
    """The smallest box around points.

    >>> surrounding_box(((3, 1), (1, 5)))
    (1, 1, 3, 5)
    """
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)


def _of_sam(predictor: SamPredictor, image: NDArray[np.uint8], prompt: MaskPrompt) -> Mask:
    """The mask with the best predicted quality: of one point several are possible, as the whole and a part."""
    predictor.set_image(image)
    points = [*prompt.inside, *prompt.outside]
    masks, quality, _ = predictor.predict(
        point_coords=np.array(points, np.float32) if points else None,
        point_labels=np.array([1] * len(prompt.inside) + [0] * len(prompt.outside)) if points else None,
        box=None if prompt.box_xyxy is None else np.array(prompt.box_xyxy, np.float32),
        multimask_output=len(points) == 1 and prompt.box_xyxy is None,
    )
    best: Mask = np.asarray(masks)[int(np.argmax(quality))]
    return best
