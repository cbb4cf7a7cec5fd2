"""IoU, matching and average precision of detections, as in COCO."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taming_core.evaluation.intervals import CONFIDENCE
from taming_core.seeds import seed_for

RESAMPLES = 2000  # of the bootstrap: the ends of an interval are right to about 0.01 of its width
COCO_IOUS = tuple(0.5 + 0.05 * i for i in range(10))  # thresholds that average precision is averaged over
RECALLS = np.linspace(0, 1, 101)

Mask = NDArray[np.bool_]  # (n, height, width)
Overlaps = NDArray[np.floating]  # (detections, objects), intersection over union


@dataclass(frozen=True)
class PhotoResult:
    """The results of both models on one photo; detections are in the order of their scores."""

    scores: NDArray[np.float64]  # (detections,)
    boxes: Overlaps  # of detected boxes with true ones
    masks: Overlaps  # of the detector's masks with true ones
    right_class: NDArray[np.bool_]  # (detections, objects)
    true_box_masks: NDArray[np.floating]  # (objects,) IoU of the segmenter's mask for the true box
    quality_error: NDArray[np.floating]  # (objects,) absolute error of the predicted IoU
    found_box_masks: NDArray[np.floating]  # (hits,) IoU of its mask for a detected box that matches an object


def mask_overlaps(a: Mask, b: Mask) -> Overlaps:
    """Intersection over union of each of `a` with each of `b`.

    >>> mask_overlaps(np.array([[[True, True]]]), np.array([[[True, False]], [[False, False]]])).tolist()
    [[0.5, 0.0]]
    """
    flat_a, flat_b = (m.reshape(len(m), m.shape[1] * m.shape[2]).astype(np.float32) for m in (a, b))
    shared = flat_a @ flat_b.T
    return shared / np.maximum(flat_a.sum(1)[:, None] + flat_b.sum(1) - shared, 1)


def box_overlaps(a: NDArray[np.floating], b: NDArray[np.floating]) -> Overlaps:
    """Intersection over union of each xyxy box of `a` with each of `b`.

    >>> box_overlaps(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0]])).round(2).tolist()
    [[0.33]]
    """
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    return shared / (area_a[:, None] + area_b - shared)


def matches(overlaps: Overlaps, min_iou: float) -> list[int]:
    """The object of each detection, -1 for none; detections are matched in the order of their scores, as in COCO.

    >>> matches(np.array([[0.6, 0.2], [0.9, 0.1], [0.9, 0.7]]), 0.5)
    [0, -1, 1]
    """
    free, matched = np.ones(overlaps.shape[1], bool), list[int]()
    for row in overlaps:
        left = np.where(free, row, -1.0)
        best = int(left.argmax()) if len(left) else -1
        hit = best >= 0 and left[best] >= min_iou
        matched.append(best if hit else -1)
        if hit:
            free[best] = False
    return matched


@dataclass(frozen=True)
class Detections:
    """All detections on a set of photos, best score first."""

    hit: NDArray[np.bool_]  # (detections,)
    photo: NDArray[np.int64]  # (detections,)
    objects: NDArray[np.int64]  # (photos,) objects in each photo


def detections_of(photos: Sequence[PhotoResult], kind: str, min_iou: float) -> Detections:
    """Which detections match an object; `kind` is `boxes` or `masks`."""
    overlaps: list[Overlaps] = [getattr(r, kind) for r in photos]
    order = np.argsort(-np.concatenate([r.scores for r in photos]), kind="stable")
    hit = np.array([m >= 0 for o in overlaps for m in matches(o, min_iou)], bool)
    photo = np.repeat(np.arange(len(photos)), [len(r.scores) for r in photos])
    return Detections(hit[order], photo[order], np.array([o.shape[1] for o in overlaps]))


def average_precision(d: Detections, counts: NDArray[np.int64]) -> float:
    """COCO's average precision, interpolated at 101 recalls; `counts` (photos,) is how often each photo counts.

    >>> d = Detections(np.array([True, False, True]), np.array([0, 0, 1]), np.array([1, 1]))
    >>> round(average_precision(d, np.ones(2, int)), 3)
    0.835
    """
    weights = counts[d.photo]
    true, total = np.cumsum(weights * d.hit), np.cumsum(weights)
    precision = np.maximum.accumulate((true / np.maximum(total, 1))[::-1])[::-1]
    recall = true / (counts * d.objects).sum()
    return float(np.append(precision, 0.0)[np.searchsorted(recall, RECALLS - 1e-9)].mean())


def precision_with_interval(name: str, d: Detections) -> dict[str, float]:
    """Average precision and its bootstrap interval over photos."""
    count = len(d.objects)
    rng = np.random.default_rng(seed_for(0, "bootstrap", 0))
    samples = [
        average_precision(d, np.bincount(rng.integers(0, count, count), minlength=count)) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = average_precision(d, np.ones(count, np.int64))
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def mean_precision(photos: Sequence[PhotoResult], kind: str) -> float:
    """Average precision, averaged over COCO's ten IoU thresholds."""
    counts = np.ones(len(photos), np.int64)
    return float(np.mean([average_precision(detections_of(photos, kind, iou), counts) for iou in COCO_IOUS]))
