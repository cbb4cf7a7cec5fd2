"""Scores of every image, one row each, and their means with confidence intervals."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from taming_core.evaluation import shape, statistics
from taming_core.evaluation.gallery import Gallery, Known, gallery, known_objects, likeness
from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share
from taming_core.evaluation.judges import FILL, SIDE, Judge, Judges, composite_on_grey, pose_images
from taming_core.evaluation.protocol import (
    ANOTHER,
    REAL,
    Drawn,
    EvalImage,
    EvalSubject,
    file_names,
    scene_prompt,
    style_prompt,
)
from taming_core.evaluation.statistics import Features
from taming_core.objects.subjects import Finder, Mask
from taming_core.params.sections import EvaluateParams
from taming_core.photos.masks import cutout
from taming_core.progress import track

MAX_OBJECTS = 3  # detections per image, most confident first, that are compared with the subject
ImageScores = dict[str, Any]  # of one image: what it shows, and a number for each measure that applies
Summary = Mapping[str, Mapping[str, Estimate]]  # condition -> measure -> its mean
TextFeatures = Callable[[Sequence[str]], Features]


class Measure(NamedTuple):
    """A score, its title and how it is formatted."""

    key: str
    unit: str  # % for a share of images
    title: str
    meaning: str
    lowest: float = -1.0  # the range, for a measure that is no share: that of cosines
    highest: float = 1.0

    def format(self, value: float) -> str:
        """The number as text: a percentage, or two decimals."""
        return f"{100 * value:.0f} %" if self.unit else f"{value:.2f}"

    def estimate(self, values: Sequence[float], identities: Sequence[str]) -> Estimate:
        """The mean of values with its interval over identities; how it was measured is no sample and has none."""
        if self.key == "other_photos":
            mean = float(np.mean(values))
            return Estimate(mean, mean, mean, len(values))
        if self.unit:
            return estimate_share(values, identities)
        return estimate_mean(values, identities, low=self.lowest, high=self.highest)


# fmt: off
MEASURES = (
    Measure("judge_top1", "%", "Right object recognised", "the judge finds it most similar of all held-out objects"),
    Measure("judge_top5", "%", "Right object among five", "it is among the five most similar ones"),
    Measure("judge_top1_all", "%", "Recognised among all", "the same among the objects of every split"),
    Measure("strict_pass", "%", "Accepted by the strict judge", "the cut-out object's cosine reaches its threshold"),
    Measure("strict_top1", "%", "Recognised strictly", "the same with the strict judge, of the cut-out object"),
    Measure("strict_cosine", "", "Strict likeness", "mean cosine with the other photos; 0 without a detection"),
    Measure("strict_cosine_seen", "", "Strict, seen picture", "the same with the picture that the encoder saw"),
    Measure("judge_cosine", "", "Likeness to the object", "mean cosine of the judge's features with the other photos'"),
    Measure("judge_cosine_seen", "", "Likeness to the seen picture", "the same with the picture that the encoder saw"),
    Measure("copying", "", "Copying", "likeness to the seen picture less that to the other photos", -2.0, 2.0),
    Measure("judge_cosine_other", "", "Likeness to the others", "mean cosine with other held-out objects; low is good"),
    Measure("donor_top1", "%", "Donor recognised", "the object whose tokens were used is the judge's most similar one"),
    Measure("shape", "", "Shape", "geometric mean of silhouette and edges", 0.0),
    Measure("shape_iou", "", "Silhouette", "overlap with another photo's silhouette after the best alignment", 0.0),
    Measure("shape_edges", "", "Edges", "F1 of outlines and inner edges after the best alignment", 0.0),
    Measure("shape_found", "%", "Object found", "the detector finds one; else shape and strict likeness are 0"),
    Measure("shape_flipped", "%", "Mirrored", "the best alignment mirrors the object"),
    Measure("scene_accuracy", "%", "Right scene", "the text judge picks the requested scene among all"),
    Measure("style_accuracy", "%", "Right style", "the text judge picks the requested style among all"),
    Measure("style_judge_top1", "%", "Recognised in a style", "right object recognised, on images in a style"),
    Measure("diversity", "", "Diversity", "mean cosine distance of images of one object, by the text judge", 0.0, 2.0),
    Measure("other_photos", "%", "Measured on other photos", "the object has photos that the encoder did not see; "
            "without one, its scores are those against the seen picture"),
)
# fmt: on


class Scored(NamedTuple):
    """The images of an evaluation with their scores."""

    rows: list[ImageScores]
    images: list[Image.Image]  # of the rows, in the same order
    summary: Summary
    known: Known


def score_all(
    drawn: Drawn, subjects: Sequence[EvalSubject], judges: Judges, find: Finder, folder: Path, p: EvaluateParams
) -> Scored:
    """Score the drawn images and the subjects' other photos by every measure.

    Args:
        drawn: the images.
        subjects: of the images.
        judges: the scoring networks.
        find: detector and segmenter.
        folder: of the rows, whose identities are the gallery.
        p: the params.
    """
    images, rows = load_images(drawn.paths, subjects), image_rows(drawn.images, subjects)
    known, text_features = known_objects(folder, p.split, judges.objects), judges.texts.images(images)
    rows = add_judge_scores(rows, judges.objects(images), known)
    rows = add_text_scores(rows, text_features, judges.texts.texts, p)
    masks = list(track(find_objects(rows, images, find), "find", len(rows)))
    rows = list(track(add_shape_scores(rows, images, subjects, masks), "shape", len(rows)))
    if judges.strict is not None:
        posed = gallery(folder, p.split, judges.strict, pose_images)
        rows = add_strict_scores(rows, images, masks, judges.strict, posed, judges.strict.acceptance_threshold)
    rows = add_diversity(rows, text_features)
    return Scored(rows, images, summary(rows), known)


def image_rows(images: Sequence[EvalImage], subjects: Sequence[EvalSubject]) -> list[ImageScores]:
    """One row for each generated image, and then for each other photo of the subjects."""
    drawn = [_drawn_row(w, file, subjects) for w, file in zip(images, file_names(images, subjects), strict=True)]
    return [*drawn, *(_photo_row(t, number) for t in subjects for number in range(len(t.photos)))]


def load_images(paths: Sequence[Path], subjects: Sequence[EvalSubject]) -> list[Image.Image]:
    """The images of `image_rows`, RGB, in the same order."""
    return [*(Image.open(path).convert("RGB") for path in paths), *(photo for t in subjects for photo in t.photos)]


def _drawn_row(w: EvalImage, file: str, subjects: Sequence[EvalSubject]) -> ImageScores:
    shown = subjects[w.request.objects[0]].identity if w.request.objects else None
    about = {"asked": w.asked, "prompt": w.request.prompt, "seed": w.request.seed, "image": file}
    subject = subjects[w.subject]
    return {**_row(w.condition, subject.identity, w.kind, shown, bool(subject.others)), **about}


def _photo_row(t: EvalSubject, number: int) -> ImageScores:
    """A real photo, which is compared with the other ones; the only one is compared with the seen picture."""
    return {**_row(REAL, t.identity, "photo", t.identity, len(t.others) > 1), "photo": number}


def _row(condition: str, identity: str, kind: str, shown: str | None, other_photos: bool) -> ImageScores:
    row = {"condition": condition, "identity": identity, "kind": kind, "shown": shown}
    return {**row, "other_photos": float(other_photos)}


def add_judge_scores(rows: Sequence[ImageScores], features: Features, known: Known) -> list[ImageScores]:
    """The rows with the object judge's scores; images in a style get the recognition score only."""
    g = known.held_out
    like, count = likeness(features, rows, g), len(g.indices)
    truth, donor = ([g.indices[r[key] or r["identity"]] for r in rows] for key in ("identity", "shown"))
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


def add_text_scores(
    rows: Sequence[ImageScores], features: Features, texts: TextFeatures, p: EvaluateParams
) -> list[ImageScores]:
    """The rows with the scene or style that the text judge chooses, and whether it is the requested one."""
    choices = {
        "scene": (p.scene_choices, texts([scene_prompt(s) for s in p.scene_choices])),
        "style": (p.style_choices, texts([style_prompt(s) for s in p.style_choices])),
    }

    def scored(row: ImageScores, feature: Features) -> ImageScores:
        if row["kind"] not in choices:
            return row
        words, text_features = choices[row["kind"]]
        best = words[int(statistics.nearest_choice(feature[None], text_features)[0])]
        return {**row, "chosen": best, f"{row['kind']}_accuracy": float(best == row["asked"])}

    return [scored(row, feature) for row, feature in zip(rows, features, strict=True)]


def find_objects(rows: Sequence[ImageScores], images: Sequence[Image.Image], find: Finder) -> Iterator[list[Mask]]:
    """The most confident detections of each image; none for images in a style, which changes outlines and colours."""
    for row, image in zip(rows, images, strict=True):
        yield [] if row["kind"] == "style" else find(np.asarray(image.convert("RGB")))[:MAX_OBJECTS]


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


def add_diversity(rows: Sequence[ImageScores], features: Features) -> list[ImageScores]:
    """The rows with how much the images of their object and condition differ from one another; styles do not count."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, r in enumerate(rows):
        if r["kind"] != "style":
            groups.setdefault((r["condition"], r["identity"]), []).append(i)
    spreads = {
        i: statistics.spread(features[numbers]) for numbers in groups.values() if len(numbers) > 1 for i in numbers
    }
    return [{**r, "diversity": spreads[i]} if i in spreads else r for i, r in enumerate(rows)]


def summary(rows: Iterable[ImageScores]) -> Summary:
    """For each condition the mean of every measure that its rows have, with its interval over identities."""
    groups: dict[str, list[ImageScores]] = {}
    for r in rows:
        groups.setdefault(r["condition"], []).append(r)
    return {condition: _estimates(group) for condition, group in groups.items()}


def _estimates(rows: Sequence[ImageScores]) -> dict[str, Estimate]:
    """The mean of every measure over the rows of one condition."""
    rows_with = [(m, [r for r in rows if m.key in r]) for m in MEASURES]
    return {
        m.key: m.estimate([r[m.key] for r in group], [r["identity"] for r in group]) for m, group in rows_with if group
    }


def metrics(summary: Summary) -> dict[str, dict[str, float]]:
    """Means only, to four decimals: what `dvc metrics` compares."""
    return {c: {key: round(e.mean, 4) for key, e in of.items()} for c, of in summary.items()}


def intervals(summary: Summary) -> dict[str, dict[str, dict[str, float]]]:
    """The ends of each interval, to four decimals, and the number of values."""
    return {
        c: {key: {"low": round(e.low, 4), "high": round(e.high, 4), "count": e.count} for key, e in of.items()}
        for c, of in summary.items()
    }
