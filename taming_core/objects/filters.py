"""Measurements of detected objects, and the reasons for dropping them (numpy; OpenCV for connected components)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taming_core import drop_reasons
from taming_core.drop_reasons import with_details
from taming_core.params.sections import DetectParams
from taming_core.photos.masks import Box


@dataclass(frozen=True)
class Detections:
    """The detections in the image of one photo: N objects, best score first."""

    boxes_xyxy: NDArray[np.float32]  # (N, 4) pixels of the image, half-open
    scores: NDArray[np.float32]  # (N,) in [0, 1]
    classes: tuple[str | None, ...]  # N nouns, lower case; None of a detector without classes
    masks: NDArray[np.bool_]  # (N, H, W) the detector's masks, of the image's size


@dataclass(frozen=True)
class Masks:
    """A segmenter's masks for N boxes of one image."""

    masks: NDArray[np.bool_]  # (N, H, W) of the image's size
    quality: NDArray[np.float32]  # (N,) predicted intersection over union, in [0, 1]


Detector = Callable[[Sequence[NDArray[np.uint8]]], Iterable[Detections]]  # images (H, W, 3) of any sizes
Segmenter = Callable[[NDArray[np.uint8], NDArray[np.float32]], Masks]  # an image (H, W, 3) and boxes (N, 4)


@dataclass(frozen=True)
class Object:
    """One object in a photo; the values of a mask are None if it was dropped for its score or box, without one."""

    box_xyxy: Box  # pixels of the upright photo
    score: float  # in [0, 1]
    noun: str | None  # None for an object that nothing named
    mask: NDArray[np.bool_] | None  # (H, W) of the image that was segmented
    quality: float | None  # in [0, 1]
    area_fraction: float | None  # mask pixels / image pixels
    mask_fill: float | None  # mask pixels inside the box / box pixels
    class_score: float | None = None  # the classifier's probability of the noun, in [0, 1]; None without one


def remove_islands(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """A mask (H, W) without components that are smaller than `share`, in [0, 1], of its largest one.

    Components are 8-connected. Large separate parts of an object, such as two cherries, stay.

    >>> remove_islands(np.array([[1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=bool), 0.5) * 1
    array([[1, 1, 1, 1, 0, 0],
           [0, 0, 0, 0, 0, 0],
           [1, 1, 0, 0, 0, 0]])
    """
    import cv2  # only detection needs it

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    area[0] = 0  # the background
    return mask & (area >= share * area.max())[labels]


def pixel_box(box_xyxy: NDArray[np.float32], width: int, height: int) -> Box:
    """A box (4,) clipped to the photo and rounded outwards to whole pixels; at least one.

    >>> pixel_box(np.array([-3.0, 0.2, 4.5, 20.0], dtype=np.float32), width=10, height=10)
    (0, 0, 5, 10)
    """
    x0, y0 = (int(v) for v in np.clip(np.floor(box_xyxy[:2]), 0, [width - 1, height - 1]))
    x1, y1 = (int(v) for v in np.clip(np.ceil(box_xyxy[2:]), 1, [width, height]))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def box_area(box: Box) -> int:
    """The area of a box in pixels; 0 for an inverted box.

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


def measure(box: Box, score: float, noun: str | None, mask: NDArray[np.bool_], quality: float | None) -> Object:
    """The object of a mask (H, W) and a box in its pixels, with the measurements that the filters use."""
    x0, y0, x1, y1 = box
    fill = mask[y0:y1, x0:x1].sum() / box_area(box)
    return Object(box, score, noun, mask, quality, float(mask.mean()), float(fill))


def filter_reasons(objects: Sequence[Object], width: int, height: int, p: DetectParams) -> list[str | None]:
    """The drop reason of each object of one photo, best score first; None for those that are kept.

    Containment is that of boxes. Of two objects that contain each other the better score stays.

    Args:
        objects: of the photo; those without a mask are judged by their box.
        width: pixels of the upright photo.
        height: likewise.
        p: the thresholds.
    """
    found = [_single_reason(o, width, height, p) for o in objects]
    areas = [min(_area(o, width, height), _box_share(o, width, height)) for o in objects]
    found = [r or _containment_reason(i, objects, areas, p) for i, r in enumerate(found)]
    kept = [i for i, r in enumerate(found) if r is None and objects[i].mask is not None]
    for i in kept[p.max_objects :]:
        found[i] = with_details(drop_reasons.TOO_MANY_OBJECTS, f"over {p.max_objects}")
    return found


def need_mask(objects: Sequence[Object], width: int, height: int, p: DetectParams) -> list[int]:
    """The indices of the objects without masks that the filters cannot judge by their boxes.

    One whose box is larger than `area_max` is among them although it touches the photo's edge: only its mask tells
    whether others are dropped because they lie inside it.
    """
    reasons = filter_reasons(objects, width, height, p)
    large = [o.score >= p.score and _box_share(o, width, height) > p.area_max for o in objects]
    return [i for i, reason in enumerate(reasons) if reason is None or large[i]]


def _area(o: Object, width: int, height: int) -> float:
    """The share of the photo that an object covers; without a mask that of its box, which is no smaller."""
    return _box_share(o, width, height) if o.area_fraction is None else o.area_fraction


def _box_share(o: Object, width: int, height: int) -> float:
    return box_area(o.box_xyxy) / (width * height)


def _single_reason(o: Object, width: int, height: int, p: DetectParams) -> str | None:
    """The drop reason of an object regardless of the other objects in the photo."""
    area = _area(o, width, height)
    if o.score < p.score:
        return with_details(drop_reasons.LOW_SCORE, f"{o.score:.2f}")
    if area < p.area_min or area == 0:
        return with_details(drop_reasons.TOO_SMALL, f"{area:.3f}")
    if o.area_fraction is not None and o.area_fraction > p.area_max:
        return with_details(drop_reasons.TOO_LARGE, f"{o.area_fraction:.3f}")
    if aspect(o.box_xyxy) > p.aspect_max:
        return with_details(drop_reasons.TOO_THIN, f"{aspect(o.box_xyxy):.2f}")
    if side := cut_off_side(o.box_xyxy, width, height, p.border):
        return with_details(drop_reasons.CUT_OFF, side)
    if o.mask_fill is not None and o.mask_fill < p.mask_fill:
        return with_details(drop_reasons.MASK_FILL, f"{o.mask_fill:.2f}")
    return None


def cut_off_side(box: Box, width: int, height: int, border: int) -> str | None:
    """The first side of the photo that is less than `border` pixels from the box.

    >>> cut_off_side((4, 0, 9, 9), width=10, height=10, border=1)
    'top'
    """
    distances = {"left": box[0], "top": box[1], "right": width - box[2], "bottom": height - box[3]}
    return next((side for side, pixels in distances.items() if pixels < border), None)


def _containment_reason(i: int, objects: Sequence[Object], areas: Sequence[float], p: DetectParams) -> str | None:
    """The drop reason if object `i` lies inside another one that reaches `score` and is not too large."""

    def inside(a: int, b: int) -> bool:
        return containment(objects[a].box_xyxy, objects[b].box_xyxy) >= p.containment

    candidates = (j for j, o in enumerate(objects) if o.score >= p.score and areas[j] <= p.area_max)
    outer = next((j for j in candidates if j != i and inside(i, j) and (j < i or not inside(j, i))), None)
    return None if outer is None else with_details(drop_reasons.INSIDE_ANOTHER, objects[outer].noun or "object")
