"""Measure the detector and segmenter of `mini` on photos of held-out objects.

Example:  python -m pipelines.mini.measure_objects
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pipelines.mini.average_precision import (
    Mask,
    Overlaps,
    PhotoResult,
    box_overlaps,
    detections_of,
    mask_overlaps,
    matches,
    mean_precision,
    precision_with_interval,
)
from pipelines.mini.metrics import with_interval, write_metrics
from pipelines.mini.options import DeviceName, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, Section, load_section, require_outside_package
from pipelines.mini.world_data import WorldData, load_data
from taming_core.objects.detector import Detector, load_detector
from taming_core.objects.filters import Detections
from taming_core.objects.segmenter import Segmenter, load_segmenter
from taming_core.seeds import seed_for
from taming_core.world.photos import Subject, photos_of, plans
from taming_core.world.plan import Chances

BATCH = 16  # photos at once; changes no metric
SETS = {  # prefix of the metrics -> split, and chance of a style other than a plain photo
    "": ("unseen-concepts", 0.0),
    "styled/": ("unseen-concepts", 1.0),
    "unseen-designs/": ("unseen-designs", 0.0),
}


class MeasureParams(Section):
    """The photos, and the settings of the detector."""

    seed: int
    photos: PositiveInt  # per set
    size: PositiveInt  # side in pixels
    two_objects: float = Field(ge=0, le=1)  # share of photos
    image_size: PositiveInt  # side in pixels of the detector's input
    min_score: float = Field(ge=0, le=1)  # of detections in average precision
    min_score_recall: float = Field(ge=0, le=1)  # of detections in recall and precision
    max_detections: PositiveInt  # per photo


@dataclass(frozen=True)
class Models:
    """The models that are measured."""

    detect: Detector
    segment: Segmenter


def results_on(models: Models, data: WorldData, split: str, style: float, p: MeasureParams) -> Iterator[PhotoResult]:
    """The results of both models on the photos of a set."""
    chances = Chances(style=style, two_objects=p.two_objects)
    sample = plans(data.world, seed_for(p.seed, "objects/test", 0), 0, p.photos, split, chances)
    for start in range(0, len(sample), BATCH):
        photos = photos_of(data.world, data.pictures, sample[start : start + BATCH], p.size)
        images = list(photos.image.numpy())
        detected = models.detect(images)
        for image, found, truth, subjects in zip(images, detected, photos.masks, photos.objects, strict=True):
            visible = [i for i, mask in enumerate(truth) if mask.any()]
            yield result_on(models.segment, image, found, truth[visible].numpy(), [subjects[i] for i in visible])


def result_on(
    segment: Segmenter, image: NDArray[np.uint8], found: Detections, truth: Mask, subjects: Sequence[Subject]
) -> PhotoResult:
    """Compare the detections of a photo with its objects, and segment the boxes of both."""
    true_boxes = np.array([s.box_xyxy for s in subjects], np.float32)
    boxes = box_overlaps(found.boxes_xyxy, true_boxes)
    from_true_boxes = segment(image, true_boxes)
    true_box_masks = np.diag(mask_overlaps(from_true_boxes.masks, truth))
    hits = [(detection, hit) for detection, hit in enumerate(matches(boxes, 0.5)) if hit >= 0]
    from_found_boxes = segment(image, found.boxes_xyxy[[detection for detection, _ in hits]])
    found_box_masks = np.diag(mask_overlaps(from_found_boxes.masks, truth[[hit for _, hit in hits]]))
    right_class = np.array([[noun == s.noun for s in subjects] for noun in found.classes], bool)
    return PhotoResult(
        found.scores.astype(np.float64), boxes, mask_overlaps(found.masks, truth), right_class.reshape(boxes.shape),
        true_box_masks, np.abs(from_true_boxes.quality - true_box_masks), found_box_masks,
    )  # fmt: skip


def detector_metrics(photos: Sequence[PhotoResult], min_score: float) -> dict[str, float]:
    """Class-agnostic detection, and how often the class of a matched detection is right."""
    objects = sum(r.boxes.shape[1] for r in photos)
    kept = [(r, i, hit) for r in photos for i, hit in enumerate(matches(r.boxes, 0.5)) if r.scores[i] >= min_score]
    hits = [entry for entry in kept if entry[2] >= 0]
    return {
        **precision_with_interval("mask_ap50", detections_of(photos, "masks", 0.5)),
        **precision_with_interval("box_ap50", detections_of(photos, "boxes", 0.5)),
        "mask_ap": mean_precision(photos, "masks"),
        "box_ap": mean_precision(photos, "boxes"),
        "recall": len(hits) / objects,
        "precision": len(hits) / max(len(kept), 1),
        "box_iou": mean(r.boxes[i, hit] for r, i, hit in hits),
        "mask_iou": mean(r.masks[i, hit] for r, i, hit in hits),
        "class_accuracy": mean(r.right_class[i, hit] for r, i, hit in hits),
    }


def segmenter_metrics(photos: Sequence[PhotoResult]) -> dict[str, float]:
    """Mean IoU for true and for detected boxes, and the error of the predicted IoU."""
    return {
        **over_photos("iou_true_boxes", [r.true_box_masks for r in photos]),
        **over_photos("iou_found_boxes", [r.found_box_masks for r in photos]),
        "share_above_90": mean(overlap > 0.9 for r in photos for overlap in r.true_box_masks),
        **over_photos("quality_error", [r.quality_error for r in photos]),
    }


def over_photos(name: str, values: Sequence[Overlaps]) -> dict[str, float]:
    """A mean over all objects and its interval over photos; empty if there are no objects."""
    owner = [str(photo) for photo, found in enumerate(values) for _ in found]
    return with_interval(name, np.concatenate(values), owner) if owner else {}


def mean(values: Iterator[float]) -> float:
    """The mean, or 0 if there are no values."""
    collected = list(values)
    return float(np.mean(collected)) if collected else 0.0


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    weights: Annotated[Path, typer.Option(help="Folder with the folders of detector and segmenter.")] = OUT,
    out: Annotated[Path, typer.Option(help="Folder for detector/metrics.json and segmenter/metrics.json.")] = OUT,
    device: DeviceName = "auto",
) -> None:
    """Render held-out photos, detect and segment their objects, and compare with the truth."""
    require_outside_package(out)
    p, data = load_section(MeasureParams, "measure_objects", params), load_data(world, device, render_on_cpu=True)
    detect = load_detector(
        str(weights / "detector"), data.device, p.image_size, p.min_score, p.max_detections, with_masks=True
    )
    models = Models(detect, load_segmenter(str(weights / "segmenter"), data.device))
    results = {name: list(results_on(models, data, *which, p)) for name, which in SETS.items()}
    size = {"photos": p.photos, "size": p.size, "two_objects": p.two_objects}
    measures = {"detector": lambda r: detector_metrics(r, p.min_score_recall), "segmenter": segmenter_metrics}
    for model, measure in measures.items():
        metrics = {f"{prefix}{key}": v for prefix, found in results.items() for key, v in measure(found).items()}
        write_metrics(out / model, {**size, **metrics})


if __name__ == "__main__":
    typer.run(main)
