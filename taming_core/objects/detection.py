"""From photo files to the rows of the objects table: detect, segment, measure and filter."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from taming_core.drop_reasons import COPY, NO_OBJECT, with_details
from taming_core.objects.filters import (
    Detections,
    Detector,
    Masks,
    Object,
    Segmenter,
    filter_reasons,
    measure,
    need_mask,
    pixel_box,
    remove_islands,
)
from taming_core.objects.given_masks import given_mask, given_object
from taming_core.objects.sources import PhotoSource
from taming_core.params.sections import DetectParams
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import photo_id_of
from taming_core.photos.masks import Size, encode_mask, scale_box
from taming_core.photos.view_hash import difference_hash, thumbnail
from taming_core.tables import schema


def rows_of(
    sources: Sequence[PhotoSource], detect: Detector, segment: Segmenter | None, p: DetectParams
) -> list[schema.Row]:
    """The rows of the objects table for some photos; each photo has at least one.

    `segment` makes the masks; None uses the detector's.
    """
    batches = (sources[i : i + p.batch_size] for i in range(0, len(sources), p.batch_size))
    return [row for batch in batches for row in _batch_rows(batch, detect, segment, p)]


def _batch_rows(
    sources: Sequence[PhotoSource], detect: Detector, segment: Segmenter | None, p: DetectParams
) -> Iterator[schema.Row]:
    """The rows of one batch of photos."""
    with ThreadPoolExecutor() as pool:
        photos = list(pool.map(partial(_read, p=p), sources))
    readable = [photo for photo in photos if isinstance(photo, Photo)]
    detections = iter(detect([photo.image for photo in readable]) if readable else [])
    for source, photo_or_reason in zip(sources, photos, strict=True):
        if isinstance(photo_or_reason, Photo):
            yield from _objects_or_reason(source, photo_or_reason, next(detections), segment, p)
        else:
            yield _row(source, photo_id_of(source.path), drop_reason=photo_or_reason)


def _objects_or_reason(
    source: PhotoSource, photo: Photo, detections: Detections, segment: Segmenter | None, p: DetectParams
) -> Iterator[schema.Row]:
    """The rows of a decoded photo: the object of the mask that it is given, or else all detections."""
    size = photo.width, photo.height
    try:
        given = given_mask(photo, source.metadata.mask)
    except PhotoError as error:
        yield _row(source, photo.photo_id, drop_reason=str(error))
        return
    if given is None:
        by = "detector" if segment is None and p.detector != "none" else "segmenter"
        yield from _photo_rows(source, photo, measure_objects(photo.image, detections, segment, p, size), p, by)
    else:
        mask, by = given
        yield from _photo_rows(source, photo, [given_object(mask, detections, source.metadata.noun, p, size)], p, by)


def _read(source: PhotoSource, p: DetectParams) -> Photo | str:
    """The photo, or its drop reason."""
    if source.metadata.left_out:
        return source.metadata.left_out
    if source.copy_of:
        return with_details(COPY, source.copy_of)
    try:
        return read_photo(source.path, p.min_side, p.max_pixels)
    except PhotoError as error:
        return str(error)


def measure_objects(
    image: NDArray[np.uint8], detections: Detections, segment: Segmenter | None, p: DetectParams, size: Size
) -> list[Object]:
    """The detections in the image (H, W, 3) of a photo as measured objects, in order.

    Those that are dropped for their score or their box get no mask.

    Args:
        image: of the photo, at any size.
        detections: in the pixels of the image.
        segment: makes the masks; None uses the detector's.
        p: the params.
        size: width and height of the upright photo, whose pixels the boxes of the objects are in.
    """
    height, width = image.shape[:2]
    boxes = [pixel_box(b, width, height) for b in detections.boxes_xyxy]
    found = [
        Object(scale_box(box, (width, height), size), float(score), noun, None, None, None, None)
        for box, score, noun in zip(boxes, detections.scores, detections.classes, strict=True)
    ]
    chosen = need_mask(found, *size, p)
    for i, (mask, quality) in zip(chosen, masks_of(image, detections, chosen, segment, p), strict=True):
        measured = measure(boxes[i], found[i].score, found[i].noun, mask, quality)
        found[i] = replace(measured, box_xyxy=found[i].box_xyxy)
    return found


def masks_of(
    image: NDArray[np.uint8], detections: Detections, chosen: Sequence[int], segment: Segmenter | None, p: DetectParams
) -> Iterator[tuple[NDArray[np.bool_], float | None]]:
    """The masks (H, W) of the chosen detections in an image (H, W, 3), and their qualities if a segmenter makes them.

    `segment` makes the masks; None uses the detector's.
    """
    if not chosen:
        return
    masks = detections.masks if segment is None else segment(image, detections.boxes_xyxy[list(chosen)])
    for n, i in enumerate(chosen):
        if isinstance(masks, Masks):
            yield remove_islands(masks.masks[n], p.island), float(masks.quality[n])
        else:
            yield remove_islands(masks[i], p.island), None


def _photo_rows(
    source: PhotoSource, photo: Photo, objects: Sequence[Object], p: DetectParams, mask_source: str
) -> Iterator[schema.Row]:
    """One row per object of a decoded photo; one row without an object if there is none."""
    hashes = {"photo_hash": f"{difference_hash(photo.image):016x}", "photo_thumbnail": thumbnail(photo.image)}
    of_photo: dict[str, object] = {"photo_width": photo.width, "photo_height": photo.height, **hashes}
    if not objects:
        yield _row(source, photo.photo_id, **of_photo, drop_reason=NO_OBJECT)
    # The edge of a cut-out's file is where it was trimmed; the object does not go on there.
    limits = p.model_copy(update={"border": 0}) if mask_source == "alpha" else p
    reasons = filter_reasons(objects, photo.width, photo.height, limits)
    main = main_object(objects, reasons, source.metadata.noun)
    identity = photo.photo_id if p.identity == "photo" else source.identity
    for i, (obj, reason) in enumerate(zip(objects, reasons, strict=True)):
        yield {
            **_row(source, photo.photo_id, **of_photo, drop_reason=reason),
            "identity": identity if i == main else f"{photo.photo_id}-{i}",
            "object_id": f"{photo.photo_id}-{i}",
            "class": source.metadata.noun or obj.noun if i == main else obj.noun,
            "score": obj.score,
            "box_xyxy": list(obj.box_xyxy),
            "mask_png": None if obj.mask is None else encode_mask(obj.mask),
            "mask_quality": obj.quality,
            "mask_source": None if obj.mask is None else mask_source,
            "area_fraction": obj.area_fraction,
            "mask_fill": obj.mask_fill,
        }


def main_object(objects: Sequence[Object], reasons: Sequence[str | None], noun: str | None) -> int:
    """The index of the object with the photo's identity and class: the first kept one, of class `noun` if possible.

    If none is kept it is the best-scored one, so that the identity of a photo without a usable object is recorded too.
    Every other object in the photo has another identity, and is no view of this one.
    """
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    return min(kept, key=lambda i: (objects[i].noun != noun, i), default=0)


def _row(source: PhotoSource, photo_id: str, **values: object) -> dict[str, object]:
    """A row with the columns of the photo and `values`; the others are null."""
    photo_columns: dict[str, object] = {
        "photo_id": photo_id,
        "file_name": source.file_name,
        "identity": source.identity,
        "given_caption": source.metadata.caption,
        "given_split": source.metadata.split,
    }
    return {**dict.fromkeys(schema.OBJECTS.names), **photo_columns, **values}
