"""Measure mini's detector and segmenter on photos of concepts that neither has seen; writes metrics.json beside each.

python pipelines/mini/measure_objects.py
python pipelines/mini/measure_objects.py --photos 16 --out out/objects    # smoke run
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from taming_core.objects import Detections
from taming_core.pretrained.detector import Detector, load_detector
from taming_core.pretrained.segmenter import Segmenter, load_segmenter
from taming_core.world import Chances, Subject, load_world, render

HERE = Path(__file__).parent
WEIGHTS = HERE.parents[1] / "taming_core" / "pretrained" / "mini"
BATCH = 16
SCORE = 0.1  # what counts as found in recall and precision; average precision runs over all scores

Mask = NDArray[np.bool_]


class Match(NamedTuple):
    """A finding and the object it overlaps most, if by at least half and not taken by a better finding."""

    score: float
    overlap: float  # intersection over union of the boxes; 0 without an object
    own_mask: float  # intersection over union of the detector's mask
    right_class: bool


@dataclass(frozen=True)
class Measured:
    """What was found on a set of photos."""

    matches: tuple[Match, ...]
    objects: int
    true_box_masks: tuple[float, ...]  # segmenter's intersection over union, prompted with true boxes
    found_box_masks: tuple[float, ...]  # with the boxes of findings that match an object
    quality_error: tuple[float, ...]  # |predicted - true| intersection over union


def main(
    photos: Annotated[int, typer.Option(help="Held-out photos, a multiple of 16.")] = 320,
    size: Annotated[int, typer.Option(help="Side of a photo in pixels.")] = 256,
    image_size: Annotated[int, typer.Option(help="Side in pixels that the detector sees.")] = 160,
    style: Annotated[float, typer.Option(help="Chance of a style other than a plain photo.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same photos.")] = 1,
    weights: Annotated[Path, typer.Option(help="Folder of the detector and segmenter folders.")] = WEIGHTS,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json files; default beside the weights.")] = None,
) -> None:
    """Render held-out photos, find and cut out their objects, compare with the truth."""
    torch.set_num_threads(1)
    detector = load_detector(str(weights / "detector"), "cpu", image_size, 0.01, 20)
    segmenter = load_segmenter(str(weights / "segmenter"), "cpu")
    measured = measure(detector, segmenter, photos, size, style, seed)
    for name, numbers in (("detector", detector_metrics(measured)), ("segmenter", segmenter_metrics(measured))):
        text = json.dumps({"photos": photos, "size": size, "style": style, **numbers}, indent=2) + "\n"
        folder = (out or weights) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(text)
        print(name, text)


def measure(detector: Detector, segmenter: Segmenter, count: int, size: int, style: float, seed: int) -> Measured:
    """Run both models on `count` photos of the split `unseen_concept`."""
    world, chances = load_world(HERE / "world"), Chances(style=style)
    matches, true_box, found_box, errors, objects = [], [], [], [], 0
    for index in range(count // BATCH):
        photos = render(world, seed, index, BATCH, size, "unseen_concept", chances)
        images = list(photos.image.numpy())
        for image, found, masks, subjects in zip(images, detector(images), photos.masks, photos.objects, strict=True):
            pairs = match(found, masks.numpy(), subjects)
            matches += [m for m, _ in pairs]
            objects += len(subjects)
            truth = segmenter(image, np.array([s.box_xyxy for s in subjects], np.float32))
            from_true = [iou(a, b) for a, b in zip(truth.masks, masks.numpy(), strict=True)]
            true_box += from_true
            errors += list(np.abs(truth.quality - from_true))
            hits = [(i, j) for i, (_, j) in enumerate(pairs) if j is not None]
            cut = segmenter(image, found.boxes_xyxy[[i for i, _ in hits]])
            found_box += [iou(mask, masks[j].numpy()) for mask, (_, j) in zip(cut.masks, hits, strict=True)]
    return Measured(tuple(matches), objects, tuple(true_box), tuple(found_box), tuple(errors))


def match(found: Detections, masks: Mask, subjects: Sequence[Subject]) -> list[tuple[Match, int | None]]:
    """Each finding, best score first, with the index of its object."""
    free, pairs = set(range(len(subjects))), []
    for box, score, noun, own in zip(found.boxes_xyxy, found.scores, found.classes, found.masks, strict=True):
        overlaps = {j: box_iou(box, np.array(subjects[j].box_xyxy)) for j in free}
        best = max(overlaps, key=lambda j: overlaps[j], default=None)
        if best is None or overlaps[best] < 0.5:
            pairs.append((Match(float(score), 0.0, 0.0, False), None))
            continue
        free.remove(best)
        pairs.append((Match(float(score), overlaps[best], iou(own, masks[best]), noun == subjects[best].noun), best))
    return pairs


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def box_iou(a: NDArray[np.floating], b: NDArray[np.integer]) -> float:
    """Intersection over union of two xyxy boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inside = float(np.prod(np.clip(high - low, 0, None)))
    return inside / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inside)


def average_precision(scores: Sequence[float], hits: Sequence[bool], objects: int) -> float:
    """Area under the precision-recall curve, precision made monotone (PASCAL VOC 2010)."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    true = np.cumsum(np.asarray(hits)[order])
    precision = true / np.arange(1, len(true) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(monotone * np.diff(true, prepend=0)) / objects)


def detector_metrics(m: Measured) -> dict[str, float]:
    """Class-blind detection, and how often the class of a hit is right."""
    scores = [x.score for x in m.matches]
    sure = [x for x in m.matches if x.score >= SCORE]
    hits = [x for x in sure if x.overlap]
    return rounded(
        box_ap50=average_precision(scores, [x.overlap >= 0.5 for x in m.matches], m.objects),
        box_ap75=average_precision(scores, [x.overlap >= 0.75 for x in m.matches], m.objects),
        mask_ap50=average_precision(scores, [x.own_mask >= 0.5 for x in m.matches], m.objects),
        recall=len(hits) / m.objects,
        precision=len(hits) / max(len(sure), 1),
        box_iou=float(np.mean([x.overlap for x in hits])),
        mask_iou=float(np.mean([x.own_mask for x in hits])),
        class_accuracy=float(np.mean([x.right_class for x in hits])),
    )


def segmenter_metrics(m: Measured) -> dict[str, float]:
    """Mean intersection over union by where the box came from, and the error of the predicted quality."""
    return rounded(
        iou_true_boxes=float(np.mean(m.true_box_masks)),
        iou_found_boxes=float(np.mean(m.found_box_masks)),
        share_above_90=float(np.mean(np.array(m.true_box_masks) > 0.9)),
        quality_error=float(np.mean(m.quality_error)),
    )


def rounded(**numbers: float) -> dict[str, float]:
    """Four digits: what differs beyond them is noise."""
    return {name: round(value, 4) for name, value in numbers.items()}


if __name__ == "__main__":
    typer.run(main)
