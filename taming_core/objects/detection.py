"""From photo files to the rows of the objects table: detect, segment, measure and filter."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from taming_core.objects.given_masks import Given, given_mask, given_object
from taming_core.objects.sources import PhotoSource
from taming_core.params.sections import DetectParams
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import photo_id_of
from taming_core.photos.masks import Size, cutout_on_grey, encode_mask, fit_mask, scale_box
from taming_core.photos.view_hash import difference_hash, thumbnail
from taming_core.tables import schema

if TYPE_CHECKING:
    from taming_core.objects.classifier import ObjectClassifier  # imports torch

UNSURE = "object"  # the class of an object that is probably not what it was named
CLASSIFIED, FILL = 224, 0.92  # pixels of a cut-out that is classified, and share of it that the object fills


@dataclass(frozen=True)
class PreparedPhoto:
    """A decoded photo, and what is made of it without models."""

    photo: Photo
    given: Given | str | None  # the mask that it is given, or the drop reason of one that does not fit
    hashes: Mapping[str, object]  # columns of the photo


def prepare(source: PhotoSource, p: DetectParams) -> PreparedPhoto | str:
    """The photo as the models see it, or its drop reason."""
    if source.metadata.left_out:
        return source.metadata.left_out
    if source.copy_of:
        return with_details(COPY, source.copy_of)
    try:
        photo = read_photo(source.path, p.min_side, p.max_pixels)
    except PhotoError as error:
        return str(error)
    hashes = {"photo_hash": f"{difference_hash(photo.image):016x}", "photo_thumbnail": thumbnail(photo.image)}
    return PreparedPhoto(replace(photo, opaque=None), _given(source, photo), hashes)


def _given(source: PhotoSource, photo: Photo) -> Given | str | None:
    try:
        return given_mask(photo, source.metadata.mask)
    except PhotoError as error:
        return str(error)


def rows_of(
    photos: Sequence[tuple[PhotoSource, PreparedPhoto | str]],
    detect: Detector,
    segment: Segmenter | None,
    p: DetectParams,
    classify: "ObjectClassifier | None" = None,
) -> list[schema.Row]:
    """The rows of the objects table for one batch of photos; each photo has at least one.

    `segment` makes the masks; None uses the detector's. `classify` names the objects; None keeps the detector's class.
    """
    readable = [prepared.photo.image for _, prepared in photos if isinstance(prepared, PreparedPhoto)]
    detections = iter(detect(readable) if readable else [])
    return [
        row
        for source, prepared in photos
        for row in (
            [_row(source, photo_id_of(source.path), drop_reason=prepared)]
            if isinstance(prepared, str)
            else _objects_or_reason(source, prepared, next(detections), segment, p, classify)
        )
    ]


def _objects_or_reason(
    source: PhotoSource, prepared: PreparedPhoto, detections: Detections, segment: Segmenter | None, p: DetectParams,
    classify: "ObjectClassifier | None",
) -> Iterator[schema.Row]:  # fmt: skip
    """The rows of a decoded photo: the object of the mask that it is given, or else all detections."""
    photo, given = prepared.photo, prepared.given
    size = photo.width, photo.height
    if isinstance(given, str):
        yield _row(source, photo.photo_id, drop_reason=given)
    elif given is None:
        by = "detector" if segment is None and p.detector != "none" else "segmenter"
        objects = measure_objects(photo.image, detections, segment, p, size)
        yield from _photo_rows(source, prepared, objects, p, by, classify)
    else:
        mask, by = given
        objects = [given_object(mask, detections, source.metadata.noun, p, size)]
        yield from _photo_rows(source, prepared, objects, p, by, classify)


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
    source: PhotoSource, prepared: PreparedPhoto, objects: Sequence[Object], p: DetectParams, mask_source: str,
    classify: "ObjectClassifier | None",
) -> Iterator[schema.Row]:  # fmt: skip
    """One row per object of a decoded photo; one row without an object if there is none."""
    photo = prepared.photo
    of_photo: dict[str, object] = {"photo_width": photo.width, "photo_height": photo.height, **prepared.hashes}
    if not objects:
        yield _row(source, photo.photo_id, **of_photo, drop_reason=NO_OBJECT)
    # The edge of a cut-out's file is where it was trimmed; the object does not go on there.
    limits = p.model_copy(update={"border": 0}) if mask_source == "alpha" else p
    reasons = filter_reasons(objects, photo.width, photo.height, limits)
    objects = named(photo.image, objects, reasons, p, classify)
    main = main_object(objects, reasons, source.metadata.noun)
    identity = photo.photo_id if p.identity == "photo" else source.identity
    for i, (obj, reason) in enumerate(zip(objects, reasons, strict=True)):
        yield {
            **_row(source, photo.photo_id, **of_photo, drop_reason=reason),
            "identity": identity if i == main else f"{photo.photo_id}-{i}",
            "object_id": f"{photo.photo_id}-{i}",
            "class": source.metadata.noun or obj.noun if i == main else obj.noun,
            "class_score": None if i == main and source.metadata.noun else obj.class_score,
            "score": obj.score,
            "box_xyxy": list(obj.box_xyxy),
            "mask_png": None if obj.mask is None else encode_mask(obj.mask),
            "mask_quality": obj.quality,
            "mask_source": None if obj.mask is None else mask_source,
            "area_fraction": obj.area_fraction,
            "mask_fill": obj.mask_fill,
        }


def named(
    image: NDArray[np.uint8],
    objects: Sequence[Object],
    reasons: Sequence[str | None],
    p: DetectParams,
    classify: "ObjectClassifier | None",
) -> list[Object]:
    """The objects with their classes: of those that are kept the classifier's, of the others the detector's.

    A class below `class_min` is "object": a caption with a wrong noun is worse than one with a general one.

    Args:
        image: (H, W, 3), of the photo, at the size of the masks.
        objects: of the photo.
        reasons: their drop reasons.
        p: the params.
        classify: None keeps the detector's classes.
    """
    kept = [i for i, (o, reason) in enumerate(zip(objects, reasons, strict=True))
            if classify and reason is None and o.mask is not None]  # fmt: skip
    crops = [cutout_on_grey(image, fit_mask(mask, image.shape[1], image.shape[0]), CLASSIFIED, FILL)
             for i in kept if (mask := objects[i].mask) is not None]  # fmt: skip
    found = dict(zip(kept, classify(crops) if classify else (), strict=True))
    of_models = [
        replace(o, noun=found[i].noun, class_score=found[i].probability) if i in found else o
        for i, o in enumerate(objects)
    ]
    return [replace(o, noun=UNSURE) if o.noun is not None and _sureness(o) < p.class_min else o for o in of_models]


def _sureness(obj: Object) -> float:
    return obj.score if obj.class_score is None else obj.class_score


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
        "given_class": source.metadata.noun,
        "given_split": source.metadata.split,
    }
    return {**dict.fromkeys(schema.OBJECTS.names), **photo_columns, **values}
