"""From photo files to the rows of the objects table: what was found in each, and what became of it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taming_core.errors import TamingError
from taming_core.objects.filters import Detections, Masks, Object, drop_reasons, measure, pixel_box, without_islands
from taming_core.params.sections import DetectParams
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import copies, folder_identity, list_photos, photo_id_of
from taming_core.photos.files import file_name as photo_file_name
from taming_core.photos.masks import encode_mask
from taming_core.photos.metadata import PhotoMetadata, read_metadata
from taming_core.tables import schema

Detector = Callable[[Sequence[NDArray[np.uint8]]], list[Detections]]
Segmenter = Callable[[NDArray[np.uint8], NDArray[np.float32]], Masks]


@dataclass(frozen=True)
class PhotoSource:
    """What is known of a photo file before anyone has looked into it."""

    path: Path
    file_name: str
    identity: str | None  # None where the photo itself is its identity, or nothing tells
    given: PhotoMetadata
    copy_of: str | None  # file name of an earlier file with the same bytes


def list_sources(folder: Path, identity: Literal["folder", "metadata", "photo"]) -> list[PhotoSource]:
    """All photo files below `folder`, with the identity that sub-folder or metadata give; metadata has the last word.

    Raises:
        TamingError: there are no photos, the metadata is wrong, or there is none where `identity` needs it.
    """
    paths = list_photos(folder)
    given = read_metadata(folder)
    if identity == "metadata" and not any(g.identity for g in given.values()):
        raise TamingError(
            f"detect.identity is metadata, but no metadata file in {folder} has a column identity. "
            "Add metadata.csv with the columns file_name and identity, or set it to folder or photo."
        )
    original = copies(paths)

    def source(path: Path) -> PhotoSource:
        name = photo_file_name(path, folder)
        said = given.get(name, PhotoMetadata())
        by_folder = folder_identity(name) if identity == "folder" else None
        return PhotoSource(path, name, None if identity == "photo" else said.identity or by_folder, said,
                      photo_file_name(original[path], folder) if path in original else None)  # fmt: skip

    return [source(path) for path in paths]


def rows_of(
    sources: Sequence[PhotoSource], detect: Detector, segment: Segmenter | None, p: DetectParams
) -> list[schema.Row]:
    """The rows of the objects table for some photos; each photo has at least one.

    `segment` makes the masks; None takes the detector's own.
    """
    batches = (sources[i : i + p.batch_size] for i in range(0, len(sources), p.batch_size))
    return [row for batch in batches for row in _batch_rows(batch, detect, segment, p)]


def _batch_rows(
    sources: Sequence[PhotoSource], detect: Detector, segment: Segmenter | None, p: DetectParams
) -> Iterator[schema.Row]:
    """The rows of photos that are in memory together."""
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(partial(_read, min_side=p.min_side), sources))
    readable = [s for s in seen if isinstance(s, Photo)]
    found = iter(detect([s.image for s in readable]) if readable else [])
    for source, photo_or_reason in zip(sources, seen, strict=True):
        if isinstance(photo_or_reason, Photo):
            objects = measure_objects(photo_or_reason.image, next(found), segment, p)
            yield from _photo_rows(source, photo_or_reason, objects, p)
        else:
            yield _row(source, photo_id_of(source.path), drop_reason=photo_or_reason)


def _read(source: PhotoSource, min_side: int) -> Photo | str:
    """The photo, or the reason why it is none."""
    if source.copy_of:
        return f"copy of another photo: {source.copy_of}"
    try:
        return read_photo(source.path, min_side)
    except PhotoError as error:
        return str(error)


def measure_objects(
    image: NDArray[np.uint8], found: Detections, segment: Segmenter | None, p: DetectParams
) -> list[Object]:
    """The detector's findings in one photo (H, W, 3) with masks, in its order; below `score` none is worth a mask."""
    height, width = image.shape[:2]
    boxes = [pixel_box(b, width, height) for b in found.boxes_xyxy]
    confident = np.flatnonzero(found.scores >= p.score)
    own = Masks(found.masks[confident], np.full(len(confident), np.nan, np.float32))
    masks = segment(image, found.boxes_xyxy[confident]) if segment is not None and len(confident) else own
    mask_index = {int(i): n for n, i in enumerate(confident)}

    def thing(i: int) -> Object:
        score, noun = float(found.scores[i]), found.classes[i]
        if i not in mask_index:
            return Object(boxes[i], score, noun, None, None, None, None)
        quality = float(masks.quality[mask_index[i]]) if segment is not None else None
        return measure(boxes[i], score, noun, without_islands(masks.masks[mask_index[i]], p.island), quality)

    return [thing(i) for i in range(len(boxes))]


def _photo_rows(source: PhotoSource, photo: Photo, found: Sequence[Object], p: DetectParams) -> Iterator[schema.Row]:
    """One row per object of a readable photo; one row without an object where there is none."""
    height, width = photo.image.shape[:2]
    if not found:
        yield _row(source, photo.photo_id, photo_width=width, photo_height=height, drop_reason="no object")
    reasons = drop_reasons(found, width, height, p)
    main = main_object(found, reasons, source.given.noun)
    identity = photo.photo_id if p.identity == "photo" else source.identity
    for i, (thing, reason) in enumerate(zip(found, reasons, strict=True)):
        yield {
            **_row(source, photo.photo_id, photo_width=width, photo_height=height, drop_reason=reason),
            "identity": identity if i == main else f"{photo.photo_id}-{i}",
            "object_id": f"{photo.photo_id}-{i}",
            "class": source.given.noun or thing.noun if i == main else thing.noun,
            "score": thing.score,
            "box_xyxy": list(thing.box_xyxy),
            "mask_png": None if thing.mask is None else encode_mask(thing.mask),
            "mask_quality": thing.quality,
            "area_fraction": thing.area_fraction,
            "mask_fill": thing.mask_fill,
        }


def main_object(found: Sequence[Object], reasons: Sequence[str | None], noun: str | None) -> int:
    """Which object the photo's identity and class speak of: the first kept one, of the given class if there is one.

    Where none is kept it is the surest, so that even a photo without a usable object has its identity on record.
    Whatever else is in the photo is another thing with an identity of its own, and no view of this one.
    """
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    return min(kept, key=lambda i: (found[i].noun != noun, i), default=0)


def _row(source: PhotoSource, photo_id: str, **values: object) -> dict[str, object]:
    """A row that says nothing but what is known of the photo, and `values`."""
    known: dict[str, object] = {
        "photo_id": photo_id,
        "file_name": source.file_name,
        "identity": source.identity,
        "given_caption": source.given.caption,
        "given_split": source.given.split,
    }
    return {**dict.fromkeys(schema.OBJECTS.names), **known, **values}
