"""Photos of coloured rectangles, and params for detection in them."""

from pathlib import Path

from PIL import Image

from taming_core.objects import detection
from taming_core.objects.classifier import ObjectClassifier
from taming_core.objects.filters import Detector, Segmenter
from taming_core.objects.sources import list_sources
from taming_core.params.sections import DetectParams
from taming_core.photos.folder import read_folder
from taming_core.tables import schema

P = DetectParams(
    detector="mini", segmenter="mini", classes=None, classifier=None, class_names=None, class_min=0.0, image_size=160,
    identity="folder", min_side=1,
    max_pixels=250_000_000, score_floor=0.05, max_found=9, score=0.3, island=0.05, area_min=0.04, area_max=0.9,
    aspect_max=3.34, border=1, containment=0.8, mask_fill=0.6, max_objects=2, curation=None, batch_size=2,
    shard_size=2,
)  # fmt: skip
COLOURS = {"ball": (255, 0, 0), "leaf": (0, 255, 0)}


def put(path: Path, **things: tuple[int, int, int, int]) -> None:
    photo = Image.new("RGB", (100, 80), (90, 90, 90))
    for noun, box in things.items():
        photo.paste(COLOURS[noun], box)
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path)


def rows_of(
    folder: Path, detect: Detector, segment: Segmenter | None, p: DetectParams, classify: ObjectClassifier | None = None
) -> list[schema.Row]:
    """The rows of the photos below a folder, by batches."""
    photos = [(source, detection.prepare(source, p)) for source in list_sources(read_folder(folder), p.identity)]
    batches = (photos[i : i + p.batch_size] for i in range(0, len(photos), p.batch_size))
    return [row for batch in batches for row in detection.rows_of(batch, detect, segment, p, classify)]
