"""Fidelity: how alike the object of an image is to the subject, by the judges' features and by its shape."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from taming_core.evaluation import shape, statistics
from taming_core.evaluation.conditions import ANOTHER
from taming_core.evaluation.gallery import Gallery, Known, likeness
from taming_core.evaluation.judges import FILL, SIDE, Judge, composite_on_grey
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.statistics import Features
from taming_core.objects.subjects import Mask
from taming_core.photos.masks import cutout


def add_judge_scores(rows: Sequence[ImageScores], features: Features, known: Known) -> list[ImageScores]:
    """The rows with the object judge's scores; images in a style get the recognition score only."""
    g = known.held_out
    like, count = likeness(features, rows, g), len(g.indices)
    truth = [g.indices[r["identity"]] for r in rows]
    donor = [g.indices[r["shown" if r["condition"] == ANOTHER else "identity"]] for r in rows]
    rank, donor_rank = (statistics.ranks_from_cosines(like.all, number) for number in (truth, donor))
    rank_all = rank + (features @ known.others.T >= like.own[:, None]).sum(1)
    other = (like.all.sum(1) - like.own) / (count - 1)

    def scored(i: int, row: ImageScores) -> ImageScores:
        scores = {"cosine": float(like.own[i])}
        if row["kind"] == "style":
            return {**row, **scores, "style_judge_top1": float(rank[i] == 0)}
        scores |= {"judge_top1": float(rank[i] == 0), "judge_top1_all": float(rank_all[i] == 0)}
        if count > 5:
            scores["judge_top5"] = float(rank[i] < 5)
        if row["condition"] == ANOTHER:
            scores["donor_top1"] = float(donor_rank[i] == 0)
        if row["other_photos"]:
            scores["copying"] = float(like.seen[i] - like.own[i])
        scores |= {"judge_cosine": float(like.own[i]), "judge_cosine_seen": float(like.seen[i])}
        return {**row, **scores, "judge_cosine_other": float(other[i])}

    return [scored(i, row) for i, row in enumerate(rows)]


def add_strict_scores(
    rows: Sequence[ImageScores], images: Sequence[Image.Image], masks: Sequence[Sequence[Mask]], judge: Judge,
    posed: Gallery, acceptance_threshold: float | None,
) -> list[ImageScores]:  # fmt: skip
    """The rows with the strict judge's scores of the cut-out objects; `strict_pass` needs an acceptance threshold.

    The most similar detection counts: a scene may hold other objects, and the most confident one may be one of them.
    """
    features = _features_of_objects(images, masks, judge)

    def scored(row: ImageScores, of_objects: Features) -> ImageScores:
        if row["kind"] == "style":
            return row
        return {**row, **_strict_scores(of_objects, row, posed, acceptance_threshold)}

    return [scored(row, of_objects) for row, of_objects in zip(rows, features, strict=True)]


def _features_of_objects(
    images: Sequence[Image.Image], masks: Sequence[Sequence[Mask]], judge: Judge
) -> list[Features]:
    """The judge's features (objects, E) of each image's objects, computed in one call."""
    cutouts = [_cut_out(image, mask) for image, of_image in zip(images, masks, strict=True) for mask in of_image]
    ends = np.cumsum([len(of_image) for of_image in masks])
    return np.split(judge(cutouts), ends[:-1]) if cutouts else [np.zeros((0, 1), np.float32)] * len(images)


def _cut_out(image: Image.Image, mask: Mask) -> Image.Image:
    return composite_on_grey(Image.fromarray(cutout(np.asarray(image.convert("RGB")), mask, SIDE, FILL)))


def _strict_scores(
    features: Features, row: ImageScores, posed: Gallery, acceptance_threshold: float | None
) -> dict[str, float]:
    """Scores of the object that is most similar to the row's identity; all 0 without an object."""
    if not len(features):
        missed = {"strict_top1": 0.0, "strict_cosine": 0.0, "strict_cosine_seen": 0.0}
        return missed | ({} if acceptance_threshold is None else {"strict_pass": 0.0})
    like, truth = likeness(features, [row] * len(features), posed), posed.indices[row["identity"]]
    best = int(like.own.argmax())
    scores = {
        "strict_top1": float(statistics.ranks_from_cosines(like.all, [truth] * len(features))[best] == 0),
        "strict_cosine": float(like.own[best]),
        "strict_cosine_seen": float(like.seen[best]),
    }
    passes = {} if acceptance_threshold is None else {"strict_pass": float(like.own[best] >= acceptance_threshold)}
    return {**scores, **passes}


def add_both_found(rows: Sequence[ImageScores]) -> list[ImageScores]:
    """The rows, the first of each image of two subjects with whether the strict judge accepts both in it.

    Where it has no acceptance threshold, whether it recognises both.
    """
    pairs: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if "beside" in row and "strict_top1" in row:
            pairs.setdefault(row["image"], []).append(i)
    found = {of[0]: min(rows[i].get("strict_pass", rows[i]["strict_top1"]) for i in of) for of in pairs.values()}
    return [{**row, "both_found": found[i]} if i in found else row for i, row in enumerate(rows)]


def add_shape_scores(
    rows: Sequence[ImageScores],
    images: Sequence[Image.Image],
    subjects: Sequence[EvalSubject],
    masks: Sequence[Sequence[Mask]],
) -> Iterator[ImageScores]:
    """The rows with the shape scores of the detected objects, against one other photo; images in a style get none."""
    by_identity = {s.identity: s for s in subjects}
    for row, image, of_image in zip(rows, images, masks, strict=True):
        reference = by_identity[row["identity"]].reference(row.get("photo"))
        yield row if row["kind"] == "style" else {**row, **_shape_scores(_canvas_object(reference), image, of_image)}


def _shape_scores(subject: shape.CanvasObject, image: Image.Image, masks: Sequence[Mask]) -> dict[str, float]:
    """Shape scores of the object that agrees best."""
    pixels = np.asarray(image.convert("RGB"))
    shapes = [shape.compare(subject, shape.to_canvas(pixels, mask)) for mask in masks]
    if not shapes:
        return {"shape": 0.0, "shape_iou": 0.0, "shape_edges": 0.0, "shape_found": 0.0}
    best = max(shapes, key=lambda s: s.agreement)
    scores = {"shape": best.agreement, "shape_iou": best.iou, "shape_edges": best.edges, "shape_found": 1.0}
    return {**scores, "shape_flipped": float(best.flipped)}


def _canvas_object(subject: Image.Image) -> shape.CanvasObject:
    rgba = np.asarray(subject.convert("RGBA"))
    return shape.to_canvas(np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] > 127)
