"""Boxes, masks, cut-outs, and the reasons for dropping an object (numpy and PIL; OpenCV for the pieces of a mask)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taming_core.params.sections import DetectParams
from taming_core.photos.masks import Box


@dataclass(frozen=True)
class Detections:
    """What a detector saw in one photo; N objects, best score first."""

    boxes_xyxy: NDArray[np.float32]  # (N, 4) pixels of the photo, half-open
    scores: NDArray[np.float32]  # (N,) in [0, 1]
    classes: tuple[str, ...]  # N nouns, lower case
    masks: NDArray[np.bool_]  # (N, H, W) the detector's own masks, at photo size


@dataclass(frozen=True)
class Masks:
    """What a segmenter made of N boxes of one photo."""

    masks: NDArray[np.bool_]  # (N, H, W) at photo size
    quality: NDArray[np.float32]  # (N,) predicted intersection over union, in [0, 1]


@dataclass(frozen=True)
class Object:
    """One boxed thing in a photo, measured; what needs a mask is None where the score was too low to make one."""

    box_xyxy: Box
    score: float  # in [0, 1]
    noun: str
    mask: NDArray[np.bool_] | None  # (H, W)
    quality: float | None  # in [0, 1]
    area_fraction: float | None  # mask pixels / photo pixels
    mask_fill: float | None  # mask pixels inside the box / box pixels


def without_islands(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """A mask (H, W) without its specks: pieces that are smaller than the share `share`, in [0, 1], of the largest one.

    Pixels that touch at a corner belong together. Parts of an object that lie apart, such as two cherries, stay.

    >>> without_islands(np.array([[1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=bool), 0.5) * 1
    array([[1, 1, 1, 1, 0, 0],
           [0, 0, 0, 0, 0, 0],
           [1, 1, 0, 0, 0, 0]])
    """
    import cv2  # here, as only detection needs it

    _, pieces, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = figures[:, cv2.CC_STAT_AREA]
    area[0] = 0  # the background is no piece
    return mask & (area >= share * area.max())[pieces]


def pixel_box(box_xyxy: NDArray[np.float32], width: int, height: int) -> Box:
    """The whole pixels that a box (4,) touches inside a photo; at least one.

    >>> pixel_box(np.array([-3.0, 0.2, 4.5, 20.0], dtype=np.float32), width=10, height=10)
    (0, 0, 5, 10)
    """
    x0, y0 = (int(v) for v in np.clip(np.floor(box_xyxy[:2]), 0, [width - 1, height - 1]))
    x1, y1 = (int(v) for v in np.clip(np.ceil(box_xyxy[2:]), 1, [width, height]))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def box_area(box: Box) -> int:
    """Pixels of a box; 0 for one that is inside out.

    >>> box_area((1, 1, 4, 3))
    6
    """
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def aspect(box: Box) -> float:
    """Longer side / shorter side.

    >>> aspect((0, 0, 10, 40))
    4.0
    """
    width, height = box[2] - box[0], box[3] - box[1]
    return max(width, height) / min(width, height)


def containment(inner: Box, outer: Box) -> float:
    """The share of `inner` that lies in `outer`.

    >>> containment((0, 0, 10, 10), (5, 0, 30, 30))
    0.5
    """
    shared = max(inner[0], outer[0]), max(inner[1], outer[1]), min(inner[2], outer[2]), min(inner[3], outer[3])
    return box_area(shared) / box_area(inner)


def measure(box: Box, score: float, noun: str, mask: NDArray[np.bool_], quality: float | None) -> Object:
    """The object of a mask (H, W), with the figures that the filters look at."""
    x0, y0, x1, y1 = box
    fill = mask[y0:y1, x0:x1].sum() / box_area(box)
    return Object(box, score, noun, mask, quality, float(mask.mean()), float(fill))


def drop_reasons(found: Sequence[Object], width: int, height: int, p: DetectParams) -> list[str | None]:
    """Why each object of one photo, best score first, is not used; None for those that are.

    An object counts as inside another by its box. Of two that are inside each other the better score stays.
    """
    own = [_own_reason(o, width, height, p) for o in found]
    reasons = [r or _inside_another(i, found, p) for i, r in enumerate(own)]
    kept = [i for i, r in enumerate(reasons) if r is None]
    surplus = set(kept[p.max_objects :])
    return [f"too many objects: over {p.max_objects}" if i in surplus else r for i, r in enumerate(reasons)]


def _own_reason(found: Object, width: int, height: int, p: DetectParams) -> str | None:
    """What speaks against an object whatever else is in the photo."""
    if found.score < p.score or found.area_fraction is None or found.mask_fill is None:
        return f"low score: {found.score:.2f}"
    if found.area_fraction < p.area_min:
        return f"too small: {found.area_fraction:.3f}"
    if found.area_fraction > p.area_max:
        return f"too large: {found.area_fraction:.3f}"
    if aspect(found.box_xyxy) > p.aspect_max:
        return f"too thin: {aspect(found.box_xyxy):.2f}"
    if side := cut_off(found.box_xyxy, width, height, p.border):
        return f"cut off: {side}"
    if found.mask_fill < p.mask_fill:
        return f"mask does not fill its box: {found.mask_fill:.2f}"
    return None


def cut_off(box: Box, width: int, height: int, border: int) -> str | None:
    """The first side of the photo that is nearer to the box than `border` pixels.

    >>> cut_off((4, 0, 9, 9), width=10, height=10, border=1)
    'top'
    """
    room = {"left": box[0], "top": box[1], "right": width - box[2], "bottom": height - box[3]}
    return next((side for side, pixels in room.items() if pixels < border), None)


def _inside_another(i: int, found: Sequence[Object], p: DetectParams) -> str | None:
    """The reason if object `i` lies in one that is sure enough, and is not the whole scene."""

    def inside(a: int, b: int) -> bool:
        return containment(found[a].box_xyxy, found[b].box_xyxy) >= p.containment

    things = (j for j, o in enumerate(found) if o.score >= p.score and (o.area_fraction or 0) <= p.area_max)
    holder = next((j for j in things if j != i and inside(i, j) and (j < i or not inside(j, i))), None)
    return None if holder is None else f"inside another: {found[holder].noun}"
