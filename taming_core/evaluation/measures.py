"""From images to verdicts, one row of numbers for each, and from those to metrics with intervals."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.evaluation import shape, statistics
from taming_core.evaluation.judges import FILL, SIDE, Judge, on_grey, poses
from taming_core.evaluation.protocol import (
    ANOTHER,
    REAL,
    EvalImage,
    EvalSubject,
    all_subjects,
    scene_prompt,
    style_prompt,
)
from taming_core.evaluation.statistics import Estimate, Features
from taming_core.objects.subjects import Finder, Mask
from taming_core.params.sections import EvaluateParams
from taming_core.photos.masks import cutout

T = TypeVar("T")
MAX_OBJECTS = 3  # objects of an image, the surest first, among which the thing is looked for
ImageScores = dict[str, Any]  # about one image: what it is, and a number for each measure that applies
Summary = Mapping[str, Mapping[str, Estimate]]  # condition -> measure -> its mean
TextFeatures = Callable[[Sequence[str]], Features]


class Measure(NamedTuple):
    """A number and how to say it."""

    key: str
    unit: str  # % for a share of images
    title: str
    meaning: str

    def format(self, value: float) -> str:
        """The number as a person reads it."""
        return f"{100 * value:.0f} %" if self.unit else f"{value:.2f}"


# fmt: off
MEASURES = (
    Measure("judge_top1", "%", "Right object recognised", "the judge finds it most alike among all held-out things"),
    Measure("judge_top5", "%", "Right object among five", "it is among the five most alike"),
    Measure("judge_top1_all", "%", "Recognised among all", "the same, among the things of every split"),
    Measure("strict_pass", "%", "Accepted by the strict judge", "it takes the cut-out object for the subject itself"),
    Measure("strict_top1", "%", "Recognised strictly", "it finds the cut-out most alike among all held-out things"),
    Measure("strict_cosine", "", "Strict likeness", "cosine of its features with the subject's; nothing found is 0"),
    Measure("judge_cosine", "", "Likeness to the object", "cosine of the judge's features with the subject's"),
    Measure("judge_cosine_other", "", "Likeness to the others", "the same with the other held-out things; low is good"),
    Measure("donor_top1", "%", "Donor recognised", "the judge finds the thing whose tokens were used most alike"),
    Measure("shape", "", "Shape", "geometric mean of silhouette and edges"),
    Measure("shape_iou", "", "Silhouette", "overlap with the subject's silhouette after the best alignment"),
    Measure("shape_edges", "", "Edges", "agreement of outlines and inner edges after it"),
    Measure("shape_found", "%", "Object found", "the detector finds an object; else shape and strict likeness are 0"),
    Measure("shape_flipped", "%", "Mirrored", "the best alignment mirrors the subject"),
    Measure("scene_accuracy", "%", "Right scene", "the text judge picks the scene that was asked for, among all"),
    Measure("style_accuracy", "%", "Right style", "the text judge picks the style that was asked for, among all"),
    Measure("style_judge_top1", "%", "Recognised in a style", "right object recognised, on images in a style"),
    Measure("diversity", "", "Diversity", "mean distance between images of one thing, in the text judge's features"),
)
# fmt: on


class Gallery(NamedTuple):
    """What the judge knows of one subject for each identity."""

    identities: dict[str, int]  # and its place in `features`
    features: Features  # (A, E)
    held_out: NDArray[np.bool_]  # (A,) which are of the evaluated split

    def places(self) -> dict[str, int]:
        """Of each held-out identity its place among the held-out ones."""
        order = np.cumsum(self.held_out) - 1
        return {identity: int(order[i]) for identity, i in self.identities.items() if self.held_out[i]}


def gallery(folder: Path, split: str, judge: Judge) -> Gallery:
    """The subjects of all identities in the rows."""
    splits, identities, features = [], [], []
    for chunk in chunks(all_subjects(folder)):
        splits += [s for s, _, _ in chunk]
        identities += [identity for _, identity, _ in chunk]
        features.append(judge([on_grey(subject) for _, _, subject in chunk]))
    places = {identity: i for i, identity in enumerate(identities)}
    return Gallery(places, np.concatenate(features), np.array([s == split for s in splits]))


class PosedGallery(NamedTuple):
    """What the strict judge knows of each held-out subject in every pose."""

    places: dict[str, int]  # of an identity in `features`
    features: NDArray[np.float32]  # (G, P, E)


def posed_gallery(folder: Path, split: str, judge: Judge) -> PosedGallery:
    """The subjects of one split, turned and mirrored."""
    known = {identity: judge(poses(subject)) for s, identity, subject in all_subjects(folder) if s == split}
    return PosedGallery({identity: i for i, identity in enumerate(known)}, np.stack(list(known.values())))


def chunks(items: Iterable[T], size: int = 64) -> Iterator[list[T]]:
    """The items in lists, so that only one list is in memory.

    >>> list(chunks("abc", 2))
    [['a', 'b'], ['c']]
    """
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def image_rows(images: Sequence[EvalImage], subjects: Sequence[EvalSubject]) -> list[ImageScores]:
    """What each drawn image is, and then the other photos of the things."""
    drawn = [_drawn(w, subjects) for w in images]
    return [*drawn, *(_row(REAL, t.identity, "photo", t.identity) for t in subjects for _ in t.photos)]


def load_images(paths: Sequence[Path], subjects: Sequence[EvalSubject]) -> list[Image.Image]:
    """The images of `rows_of`, in the same order."""
    return [*(Image.open(path).convert("RGB") for path in paths), *(photo for t in subjects for photo in t.photos)]


def _drawn(w: EvalImage, things: Sequence[EvalSubject]) -> ImageScores:
    shown = things[w.request.objects[0]].identity if w.request.objects else None
    about = {"asked": w.asked, "prompt": w.request.prompt, "seed": w.request.seed, "image": w.file(things)}
    return {**_row(w.condition, things[w.subject].identity, w.kind, shown), **about}


def _row(condition: str, identity: str, kind: str, shown: str | None) -> ImageScores:
    return {"condition": condition, "identity": identity, "kind": kind, "shown": shown}


def add_judge_scores(rows: Sequence[ImageScores], features: Features, known: Gallery) -> list[ImageScores]:
    """The rows with what the object's judge says; on styles only whether it recognises the thing."""
    held_out, place = known.features[known.held_out], known.places()
    everywhere = [known.identities[r["identity"]] for r in rows]
    own, donor = ([place[r[key] or r["identity"]] for r in rows] for key in ("identity", "shown"))
    rank, donor_rank = statistics.ranks(features, held_out, own), statistics.ranks(features, held_out, donor)
    rank_all = statistics.ranks(features, known.features, everywhere)
    cosine, other = statistics.own_cosine(features, held_out, own), statistics.other_cosine(features, held_out, own)

    def verdict(i: int, row: ImageScores) -> ImageScores:
        said = {"cosine": float(cosine[i])}
        if row["kind"] == "style":
            return {**row, **said, "style_judge_top1": float(rank[i] == 0)}
        said |= {"judge_top1": float(rank[i] == 0), "judge_top1_all": float(rank_all[i] == 0)}
        if len(held_out) > 5:
            said["judge_top5"] = float(rank[i] < 5)
        if row["condition"] == ANOTHER:
            said["donor_top1"] = float(donor_rank[i] == 0)
        return {**row, **said, "judge_cosine": float(cosine[i]), "judge_cosine_other": float(other[i])}

    return [verdict(i, row) for i, row in enumerate(rows)]


def add_text_scores(
    rows: Sequence[ImageScores], features: Features, texts: TextFeatures, p: EvaluateParams
) -> list[ImageScores]:
    """The rows with which scene or style the text judge chooses."""
    choices = {
        "scene": (p.scene_choices, texts([scene_prompt(s) for s in p.scene_choices])),
        "style": (p.style_choices, texts([style_prompt(s) for s in p.style_choices])),
    }

    def verdict(row: ImageScores, feature: Features) -> ImageScores:
        if row["kind"] not in choices:
            return row
        words, said = choices[row["kind"]]
        best = words[int(statistics.nearest(feature[None], said)[0])]
        return {**row, "chosen": best, f"{row['kind']}_accuracy": float(best == row["asked"])}

    return [verdict(row, feature) for row, feature in zip(rows, features, strict=True)]


def find_objects(rows: Sequence[ImageScores], images: Sequence[Image.Image], find: Finder) -> Iterator[list[Mask]]:
    """The surest objects of each image; of one in a style none, for its outlines and colours are the style's."""
    for row, image in zip(rows, images, strict=True):
        yield [] if row["kind"] == "style" else find(np.asarray(image.convert("RGB")))[:MAX_OBJECTS]


def add_strict_scores(
    rows: Sequence[ImageScores], images: Sequence[Image.Image], found: Sequence[Sequence[Mask]], judge: Judge,
    known: PosedGallery, accepted_from: float | None,
) -> list[ImageScores]:  # fmt: skip
    """The rows with what the strict judge says of the cut-out objects; it accepts one from a cosine on, if it has one.

    The most alike of an image's objects counts: a scene may hold other things, and the surest need not be the one.
    """
    features = _features_of_objects(images, found, judge)

    def verdict(row: ImageScores, seen: Features) -> ImageScores:
        if row["kind"] == "style":
            return row
        return {**row, **_strict(seen, known.features, known.places[row["identity"]], accepted_from)}

    return [verdict(row, seen) for row, seen in zip(rows, features, strict=True)]


def _features_of_objects(
    images: Sequence[Image.Image], found: Sequence[Sequence[Mask]], judge: Judge
) -> list[Features]:
    """The judge's features (objects, E) of each image's objects, all judged in one go."""
    cut = [_cut(image, mask) for image, masks in zip(images, found, strict=True) for mask in masks]
    ends = np.cumsum([len(masks) for masks in found])
    return np.split(judge(cut), ends[:-1]) if cut else [np.zeros((0, 1), np.float32)] * len(images)


def _cut(image: Image.Image, mask: Mask) -> Image.Image:
    return on_grey(Image.fromarray(cutout(np.asarray(image.convert("RGB")), mask, SIDE, FILL)))


def _strict(seen: Features, posed: NDArray[np.float32], own: int, accepted_from: float | None) -> dict[str, float]:
    """Of the object that is most like the subject number `own`; all 0 where nothing is found."""
    if not len(seen):
        return {"strict_top1": 0.0, "strict_cosine": 0.0} | ({} if accepted_from is None else {"strict_pass": 0.0})
    alike = statistics.in_best_pose(seen, posed)
    best = int(alike[:, own].argmax())
    cosine = float(alike[best, own])
    said = {"strict_top1": float(statistics.ranks_by(alike, [own] * len(seen))[best] == 0), "strict_cosine": cosine}
    return said if accepted_from is None else {**said, "strict_pass": float(cosine >= accepted_from)}


def add_shape_scores(
    rows: Sequence[ImageScores],
    images: Sequence[Image.Image],
    subjects: Sequence[EvalSubject],
    found: Sequence[Sequence[Mask]],
) -> Iterator[ImageScores]:
    """The rows with the shape measures of the found objects; none on styles."""
    views = {s.identity: _view(s.subject) for s in subjects}
    for row, image, masks in zip(rows, images, found, strict=True):
        yield row if row["kind"] == "style" else {**row, **_shape(views[row["identity"]], image, masks)}


def _shape(subject: shape.CanvasObject, image: Image.Image, masks: Sequence[Mask]) -> dict[str, float]:
    """Of the object that agrees best."""
    pixels = np.asarray(image.convert("RGB"))
    seen = [shape.compare(subject, shape.to_canvas(pixels, mask)) for mask in masks]
    if not seen:
        return {"shape": 0.0, "shape_iou": 0.0, "shape_edges": 0.0, "shape_found": 0.0}
    best = max(seen, key=lambda s: s.agreement)
    found = {"shape": best.agreement, "shape_iou": best.iou, "shape_edges": best.edges, "shape_found": 1.0}
    return {**found, "shape_flipped": float(best.flipped)}


def _view(subject: Image.Image) -> shape.CanvasObject:
    rgba = np.asarray(subject.convert("RGBA"))
    return shape.to_canvas(np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] > 127)


def diversity(rows: Sequence[ImageScores], features: Features) -> list[ImageScores]:
    """One row for each condition and thing: how much its images, styles apart, differ from one another."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, r in enumerate(rows):
        if r["kind"] != "style":
            groups.setdefault((r["condition"], r["identity"]), []).append(i)
    return [
        {"condition": condition, "identity": identity, "diversity": statistics.spread(features[places])}
        for (condition, identity), places in groups.items()
        if len(places) > 1
    ]


def summary(rows: Iterable[ImageScores], seed: int) -> Summary:
    """For each condition the mean of every measure that its rows have, with its interval over things."""
    groups: dict[str, list[ImageScores]] = {}
    for r in rows:
        groups.setdefault(r["condition"], []).append(r)
    return {condition: _estimates(group, seed) for condition, group in groups.items()}


def _estimates(rows: Sequence[ImageScores], seed: int) -> dict[str, Estimate]:
    """Of the rows of one condition."""
    having = {m.key: [r for r in rows if m.key in r] for m in MEASURES}
    return {
        key: statistics.estimate([r[key] for r in found], [r["identity"] for r in found], seed)
        for key, found in having.items()
        if found
    }


def metrics(found: Summary) -> dict[str, dict[str, float]]:
    """Means only, to four digits: what `dvc metrics` compares."""
    return {c: {key: round(e.mean, 4) for key, e in of.items()} for c, of in found.items()}


def intervals(found: Summary) -> dict[str, dict[str, dict[str, float]]]:
    """Ends of the intervals and how many values each mean is of."""
    return {
        c: {key: {"low": round(e.low, 4), "high": round(e.high, 4), "count": e.count} for key, e in of.items()}
        for c, of in found.items()
    }
