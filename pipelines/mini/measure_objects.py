"""Measure mini's detector and segmenter on photos of things that neither has seen; writes metrics.json beside each.

Example:  python pipelines/mini/measure_objects.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import schooling
import typer
from devices import ready
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from schooling import Section

from taming_core.evaluation.statistics import CONFIDENCE, RESAMPLES
from taming_core.objects.detector import Detector, load_detector
from taming_core.objects.filters import Detections
from taming_core.objects.segmenter import Segmenter, load_segmenter
from taming_core.seeds import seed_for
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import Subject, photos_of, plans
from taming_core.world.plan import Chances

AT_ONCE = 16  # photos in memory; changes no figure
SETS = {  # what figures begin with -> what they are of: a split, and the chance of a style other than a plain photo
    "": ("unseen-concepts", 0.0),
    "styled/": ("unseen-concepts", 1.0),
    "unseen-designs/": ("unseen-designs", 0.0),
}
COCO = tuple(0.5 + 0.05 * i for i in range(10))  # least overlaps that average precision is averaged over
RECALLS = np.linspace(0, 1, 101)

Mask = NDArray[np.bool_]  # (n, height, width)
Overlaps = NDArray[np.floating]  # (findings, objects), intersection over union


class MeasureParams(Section):
    """The photos, and what the detector is asked for."""

    seed: int
    photos: PositiveInt  # per set
    size: PositiveInt  # side in pixels
    two_objects: float = Field(ge=0, le=1)  # share of photos
    image_size: PositiveInt  # side in pixels that the detector sees
    floor: float = Field(ge=0, le=1)  # least score of a finding in average precision, which runs over all scores
    sure: float = Field(ge=0, le=1)  # least score in recall and precision
    max_found: PositiveInt  # per photo


@dataclass(frozen=True)
class Seen:
    """What both models made of one photo; findings are in the order of their scores."""

    scores: NDArray[np.float64]  # (findings,)
    boxes: Overlaps  # of found boxes with true ones
    masks: Overlaps  # of the detector's masks with true ones
    right_class: NDArray[np.bool_]  # (findings, objects)
    true_box_masks: NDArray[np.floating]  # (objects,) overlap of the segmenter's mask, prompted with the true box
    quality_error: NDArray[np.floating]  # (objects,) predicted overlap less the true one, absolute
    found_box_masks: NDArray[np.floating]  # (hits,) overlap of its mask, prompted with a box that hit an object


def seen_on(
    detect: Detector, segment: Segmenter, world: World, pictures: Pictures, split: str, style: float, p: MeasureParams
) -> Iterator[Seen]:
    """Both models on photos of a set."""
    chances = Chances(style=style, two_objects=p.two_objects)
    wanted = plans(world, seed_for(p.seed, "objects/test", 0), 0, p.photos, split, chances)
    for start in range(0, len(wanted), AT_ONCE):
        photos = photos_of(world, pictures, wanted[start : start + AT_ONCE], p.size)
        images = list(photos.image.numpy())
        for image, found, truth, subjects in zip(images, detect(images), photos.masks, photos.objects, strict=True):
            visible = [i for i, mask in enumerate(truth) if mask.any()]
            yield seen(segment, image, found, truth[visible].numpy(), [subjects[i] for i in visible])


def seen(
    segment: Segmenter, image: NDArray[np.uint8], found: Detections, truth: Mask, subjects: Sequence[Subject]
) -> Seen:
    """Compare what was found on a photo with its objects, and prompt the segmenter with the boxes of both."""
    true_boxes = np.array([s.box_xyxy for s in subjects], np.float32)
    boxes = box_overlaps(found.boxes_xyxy, true_boxes)
    cut = segment(image, true_boxes)
    from_true = np.diag(mask_overlaps(cut.masks, truth))
    hits = [(finding, hit) for finding, hit in enumerate(matches(boxes, 0.5)) if hit >= 0]
    cut_again = segment(image, found.boxes_xyxy[[finding for finding, _ in hits]])
    from_found = mask_overlaps(cut_again.masks, truth[[hit for _, hit in hits]])
    right = np.array([[noun == s.noun for s in subjects] for noun in found.classes], bool)
    return Seen(
        found.scores.astype(np.float64), boxes, mask_overlaps(found.masks, truth), right.reshape(boxes.shape),
        from_true, np.abs(cut.quality - from_true), np.diag(from_found),
    )  # fmt: skip


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


def matches(overlaps: Overlaps, least: float) -> list[int]:
    """The object of each finding, -1 if none: the better finding chooses first, as COCO has it.

    >>> matches(np.array([[0.6, 0.2], [0.9, 0.1], [0.9, 0.7]]), 0.5)
    [0, -1, 1]
    """
    free, found = np.ones(overlaps.shape[1], bool), []
    for row in overlaps:
        left = np.where(free, row, -1.0)
        best = int(left.argmax()) if len(left) else -1
        hit = best >= 0 and left[best] >= least
        found.append(best if hit else -1)
        if hit:
            free[best] = False
    return found


@dataclass(frozen=True)
class Findings:
    """All findings on a set of photos, best score first."""

    hit: NDArray[np.bool_]  # (findings,)
    photo: NDArray[np.int64]  # (findings,)
    objects: NDArray[np.int64]  # (photos,) how many there are to find


def findings(photos: Sequence[Seen], kind: str, least: float) -> Findings:
    """Which findings hit an object; `kind` is `boxes` or `masks`."""
    overlaps: list[Overlaps] = [getattr(s, kind) for s in photos]
    order = np.argsort(-np.concatenate([s.scores for s in photos]), kind="stable")
    hit = np.array([m >= 0 for o in overlaps for m in matches(o, least)], bool)
    photo = np.repeat(np.arange(len(photos)), [len(s.scores) for s in photos])
    return Findings(hit[order], photo[order], np.array([o.shape[1] for o in overlaps]))


def average_precision(f: Findings, drawn: NDArray[np.int64]) -> float:
    """Mean of the best precision at 101 recalls or beyond, as COCO has it; `drawn` (photos,) is how often each counts.

    >>> found = Findings(np.array([True, False, True]), np.array([0, 0, 1]), np.array([1, 1]))
    >>> round(average_precision(found, np.ones(2, int)), 3)
    0.835
    """
    counts = drawn[f.photo]
    true, all_found = np.cumsum(counts * f.hit), np.cumsum(counts)
    precision = np.maximum.accumulate((true / np.maximum(all_found, 1))[::-1])[::-1]
    recall = true / (drawn * f.objects).sum()
    return float(np.append(precision, 0.0)[np.searchsorted(recall, RECALLS - 1e-9)].mean())


def precisions(name: str, f: Findings) -> dict[str, float]:
    """Average precision and its bootstrap interval over photos."""
    count = len(f.objects)
    rng = np.random.default_rng(seed_for(0, "bootstrap", 0))
    again = [
        average_precision(f, np.bincount(rng.integers(0, count, count), minlength=count)) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(again, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    found = average_precision(f, np.ones(count, np.int64))
    return {name: found, f"{name}_low": float(low), f"{name}_high": float(high)}


def detector_metrics(photos: Sequence[Seen], sure: float) -> dict[str, float]:
    """Class-blind detection, and how often the class of a hit is right."""
    every = np.ones(len(photos), np.int64)
    objects = sum(s.boxes.shape[1] for s in photos)
    surely = [(s, i, hit) for s in photos for i, hit in enumerate(matches(s.boxes, 0.5)) if s.scores[i] >= sure]
    hits = [found for found in surely if found[2] >= 0]
    return {
        **precisions("mask_ap50", findings(photos, "masks", 0.5)),
        **precisions("box_ap50", findings(photos, "boxes", 0.5)),
        "mask_ap": float(np.mean([average_precision(findings(photos, "masks", least), every) for least in COCO])),
        "box_ap": float(np.mean([average_precision(findings(photos, "boxes", least), every) for least in COCO])),
        "recall": len(hits) / objects,
        "precision": len(hits) / max(len(surely), 1),
        "box_iou": mean(s.boxes[i, hit] for s, i, hit in hits),
        "mask_iou": mean(s.masks[i, hit] for s, i, hit in hits),
        "class_accuracy": mean(s.right_class[i, hit] for s, i, hit in hits),
    }


def segmenter_metrics(photos: Sequence[Seen]) -> dict[str, float]:
    """Mean intersection over union by where the box came from, and the error of the predicted quality."""
    return {
        **over_photos("iou_true_boxes", [s.true_box_masks for s in photos]),
        **over_photos("iou_found_boxes", [s.found_box_masks for s in photos]),
        "share_above_90": mean(overlap > 0.9 for s in photos for overlap in s.true_box_masks),
        **over_photos("quality_error", [s.quality_error for s in photos]),
    }


def over_photos(name: str, values: Sequence[NDArray[np.floating]]) -> dict[str, float]:
    """A mean over all objects, and its bootstrap interval over photos; nothing if there are no objects."""
    owner = [str(photo) for photo, found in enumerate(values) for _ in found]
    return schooling.estimated(name, np.concatenate(values), owner) if owner else {}


def mean(values: Iterator[float]) -> float:
    """0 if there are none."""
    found = list(values)
    return float(np.mean(found)) if found else 0.0


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    weights: Annotated[Path, typer.Option(help="Folder of the detector and segmenter folders.")] = schooling.WEIGHTS,
    out: Annotated[Path | None, typer.Option(help="Folder for both metrics.json; default beside the weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Render held-out photos, find and cut out their objects, and compare with the truth."""
    p, device = schooling.section(MeasureParams, "measure_objects", params), ready(device)
    artwork = load_world(world)
    pictures = load_pictures(artwork)
    detect = load_detector(str(weights / "detector"), device, p.image_size, p.floor, p.max_found)
    segment = load_segmenter(str(weights / "segmenter"), device)
    photos = {name: list(seen_on(detect, segment, artwork, pictures, *which, p)) for name, which in SETS.items()}
    shown = {"photos": p.photos, "size": p.size, "two_objects": p.two_objects}
    for model, measure in (("detector", lambda s: detector_metrics(s, p.sure)), ("segmenter", segmenter_metrics)):
        figures = {f"{name}{key}": v for name, found in photos.items() for key, v in measure(found).items()}
        schooling.write_metrics((out or weights) / model, {**shown, **figures})


if __name__ == "__main__":
    typer.run(main)
