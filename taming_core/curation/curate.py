"""Measure photos and kept objects, and drop what is outside the bounds of `detect.curation`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.curation.sharpness import sharpness
from taming_core.drop_reasons import BLURRED, EXCLUDED, score_too, with_details
from taming_core.language.class_words import likeness
from taming_core.objects import detection
from taming_core.objects.detection import PreparedPhoto
from taming_core.objects.networks import load_classifier, load_networks
from taming_core.objects.sources import PhotoSource
from taming_core.params.sections import CurationParams, DetectParams, ScoreParams
from taming_core.photos.masks import crop_in_photo, decode_mask, fit_mask
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import iter_column

if TYPE_CHECKING:
    from taming_core.curation.scores import Score

Pair = tuple[PhotoSource, PreparedPhoto | str]  # a photo as `detection.prepare` returns it
SIDE, FILL, GREY = 512, 0.92, 128  # pixels of the longer side of what models see, framing of an object, its ground


def load_scores(p: CurationParams, device: str) -> list["Score"]:
    """The models of the scores, in their order.

    Raises:
        TamingError: one of them is missing, or has no such label.
    """
    if not p.scores:
        return []
    from taming_core.curation.scores import load_score  # imports torch

    return [load_score(score, device) for score in p.scores]


def curate(
    rows: Sequence[schema.Row],
    images: Mapping[str, NDArray[np.uint8]],
    scores: Sequence["Score"],
    p: CurationParams,
    batch_size: int,
) -> list[schema.Row]:
    """The rows of the objects table with their measures, and with drop reasons of what is outside the bounds.

    Args:
        rows: all of each photo.
        images: (H, W, 3), the photos that could be read, by file name.
        scores: of `load_scores`.
        p: the params.
        batch_size: images that the models of scores see at once.
    """
    measured = [row for photo in _by_photo(rows) for row in _measured(photo, images, p)]
    for score, compute in zip(p.scores, scores, strict=True):
        measured = _scored(measured, score, compute, batch_size)
    return [_without_views(row) for photo in _by_photo(measured) for row in _judged(photo, p)]


def _by_photo(rows: Sequence[schema.Row]) -> Iterator[list[dict[str, Any]]]:
    for _, group in groupby(rows, lambda row: row["file_name"]):
        yield [dict(row) for row in group]


def _measured(
    rows: Sequence[dict[str, Any]], images: Mapping[str, NDArray[np.uint8]], p: CurationParams
) -> Iterator[dict[str, Any]]:
    """The rows of one photo with its view, and kept objects with theirs and their sharpness."""
    image = images[rows[0]["file_name"]] if rows[0]["photo_width"] is not None else None
    if image is None:
        yield from rows
        return
    photo = np.asarray(_thumbnail(image)) if any(s.view == "photo" for s in p.scores) else None
    for row in rows:
        views = {"view_photo": photo}
        if row["object_id"] is not None and row["drop_reason"] is None:
            mask = fit_mask(decode_mask(row["mask_png"]), image.shape[1], image.shape[0])
            row |= {"sharpness": sharpness(image, mask)}
            if any(s.view == "object" for s in p.scores):
                views |= {"view_object": _on_grey(crop_in_photo(image, mask, SIDE, FILL))}
        yield {**row, **views}


def _thumbnail(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    return picture


def _on_grey(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(rgba)
    return np.asarray(
        Image.alpha_composite(Image.new("RGBA", picture.size, (GREY,) * 3 + (255,)), picture).convert("RGB")
    )


def _scored(rows: Sequence[dict[str, Any]], p: ScoreParams, compute: "Score", batch_size: int) -> list[dict[str, Any]]:
    """The rows with one more score; a photo's is computed once."""
    key = f"view_{p.view}"
    places = [n for n, row in enumerate(rows) if row.get(key) is not None]
    if p.view == "photo":
        names = [rows[n]["file_name"] for n in places]
        places = [n for n, name, before in zip(places, names, [None, *names], strict=False) if name != before]
    values: list[float] = []
    for start in range(0, len(places), batch_size):
        batch = [rows[n] for n in places[start : start + batch_size]]
        values += compute([row[key] for row in batch], [row["class"] or "object" for row in batch]).tolist()
    found: Mapping[Any, float] = dict(zip((_key(rows[n], p) for n in places), values, strict=True))
    return [_with_score(row, p.name, found.get(_key(row, p))) for row in rows]


def _key(row: schema.Row, p: ScoreParams) -> tuple[Any, ...]:
    return (row["file_name"],) if p.view == "photo" else (row["file_name"], row["object_id"])


def _with_score(row: dict[str, Any], name: str, value: float | None) -> dict[str, Any]:
    if value is None:
        return row
    return {**row, "scores": [*(row["scores"] or []), {"name": name, "score": value}]}


def _judged(rows: Sequence[dict[str, Any]], p: CurationParams) -> Iterator[dict[str, Any]]:
    """The rows of one photo with their reasons; that of the photo holds for all of its objects."""
    bounds = {view: [s for s in p.scores if s.view == view] for view in ("photo", "object")}
    of_photo = next((reason for row in rows if (reason := _out_of_bounds(row, bounds["photo"]))), None)
    for row in rows:
        kept = row["object_id"] is not None and row["drop_reason"] is None
        reason = of_photo or _object_reason(row, bounds["object"], p) if kept else row["drop_reason"]
        yield {**row, "drop_reason": reason, "photo_reason": of_photo or row["photo_reason"]}


def _object_reason(row: schema.Row, scores: Sequence[ScoreParams], p: CurationParams) -> str | None:
    if row["class"] and any(likeness(excluded, row["class"]) for excluded in p.exclude):
        return with_details(EXCLUDED, row["class"])
    if p.sharpness_min is not None and row["sharpness"] is not None and row["sharpness"] < p.sharpness_min:
        return with_details(BLURRED, f"{row['sharpness']:.0f}")
    return _out_of_bounds(row, scores)


def _out_of_bounds(row: schema.Row, scores: Sequence[ScoreParams]) -> str | None:
    """The reason of the first score outside its bounds."""
    values = {s["name"]: s["score"] for s in row["scores"] or ()}
    for score in scores:
        value = values.get(score.name)
        if value is None:
            continue
        if score.min is not None and value < score.min:
            return with_details(score_too("low", score.name), f"{value:.3f}")
        if score.max is not None and value > score.max:
            return with_details(score_too("high", score.name), f"{value:.3f}")
    return None


def _without_views(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("view_")}


def load_detection(device: str, p: DetectParams) -> Callable[[Sequence[Pair]], list[schema.Row]]:
    """The rows of the objects table for a batch of photos, by the models of the params, which are loaded.

    Raises:
        TamingError: there is no such device, or no such model.
    """
    from taming_core.weights.device import pick_device  # imports torch

    where = pick_device(device)
    detect, segment = load_networks(p, where)
    make = partial(detection.rows_of, detect=detect, segment=segment, p=p, classify=load_classifier(p, where))
    if p.curation is None:
        return make
    return partial(_curated_rows, make=make, scores=load_scores(p.curation, where), p=p.curation, size=p.batch_size)


def _curated_rows(
    photos: Sequence[Pair],
    make: Callable[[Sequence[Pair]], list[schema.Row]],
    scores: Sequence["Score"],
    p: CurationParams,
    size: int,
) -> list[schema.Row]:
    images = {source.file_name: read.photo.image for source, read in photos if not isinstance(read, str)}
    return curate(make(photos), images, scores, p, size)


def exclusion_notes(table: AnyPath, p: DetectParams) -> list[str]:
    """A line that names the excluded classes that no object of a table has, as one that is misspelled; or none."""
    classes = {noun for noun in iter_column(table, "class") if noun} if p.curation else set[str]()
    exclude = p.curation.exclude if p.curation else []
    unused = [excluded for excluded in exclude if not any(likeness(excluded, noun) for noun in classes)]
    return [f"detect.curation.exclude: no object is of the class {', '.join(unused)}"] if unused else []
