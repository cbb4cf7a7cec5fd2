"""All scores of all images, one row for each image."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from taming_core.evaluation import (
    copying,
    object_scores,
    perceptual,
    quality,
    similarity,
    strata,
    text_scores,
    vlm_judge,
)
from taming_core.evaluation.conditions import REAL, variant
from taming_core.evaluation.drawing import Drawn
from taming_core.evaluation.gallery import Known, gallery, known_objects
from taming_core.evaluation.judges import Judges, pose_images
from taming_core.evaluation.measures import ImageScores, Summary, summary
from taming_core.evaluation.protocol import EvalImage, EvalSubject, file_names
from taming_core.evaluation.similarity import ScoreNetworks
from taming_core.evaluation.views import Views, features
from taming_core.objects.subjects import Finder, Mask
from taming_core.params.sections import EvaluateParams
from taming_core.progress import track
from taming_core.storage.paths import AnyPath
from taming_core.vlm.kept_answers import KeptAnswers

MAX_OBJECTS = 3  # detections per image, most confident first, that are compared with the subject


class Scored(NamedTuple):
    """The images of an evaluation with their scores."""

    rows: list[ImageScores]
    images: list[Image.Image]  # of the rows, in the same order
    summary: Summary
    known: Known


def score_all(
    drawn: Drawn, subjects: Sequence[EvalSubject], judges: Judges, networks: ScoreNetworks, find: Finder,
    folder: AnyPath, p: EvaluateParams, vlm: KeptAnswers | None = None,
) -> Scored:  # fmt: skip
    """Score the drawn images and the subjects' other photos by every measure.

    Args:
        drawn: the images.
        subjects: of the images.
        judges: the scoring networks.
        networks: those of the scores that papers report.
        find: detector and segmenter.
        folder: of the rows, whose identities are the gallery.
        p: the params.
        vlm: the vision-language model, if the params name one.
    """
    images, rows = load_images(drawn, subjects), image_rows(drawn.images, subjects)
    rows = vlm_judge.add_vlm_scores(rows, images, subjects, vlm, p)
    known = known_objects(folder, p.split, judges.objects, p.baseline_photos)
    object_features, text_features = judges.objects(images), judges.texts.images(images)
    rows = object_scores.add_judge_scores(rows, object_features, known)
    rows = text_scores.add_text_scores(rows, text_features, judges.texts.texts, p)
    masks = list(track(find_objects(rows, images, find), "find", len(rows)))
    rows = list(track(object_scores.add_shape_scores(rows, images, subjects, masks), "shape", len(rows)))
    if judges.strict is not None:
        posed = gallery(folder, p.split, judges.strict, pose_images, p.baseline_photos)
        rows = object_scores.add_strict_scores(
            rows, images, masks, judges.strict, posed, judges.strict.acceptance_threshold
        )
    rows = object_scores.add_both_found(rows)
    rows = text_scores.add_diversity(rows, text_features)
    rows = strata.add_strata(rows, subjects)
    views = Views(images, masks, subjects)
    rows = copying.add_copy_scores(rows, views, features(judges.objects, views, object_features), judges.objects)
    rows, found = similarity.add_all_scores(rows, views, networks)
    if networks.lpips is not None:
        rows = perceptual.add_lpips(rows, views, networks.lpips)
    of_conditions = quality.add_quality(summary(rows), rows, found.get("clip_l14"), p.scores.quality)
    return Scored(rows, images, of_conditions, known)


def image_rows(images: Sequence[EvalImage], subjects: Sequence[EvalSubject]) -> list[ImageScores]:
    """One row for each generated image and subject in it, and then for each other photo of the subjects."""
    files = file_names(images, subjects)
    drawn = [_drawn_row(w, i, file, subjects) for w, file in zip(images, files, strict=True) for i in w.subjects]
    return [*drawn, *(_photo_row(t, number) for t in subjects for number in range(len(t.photos)))]


def load_images(drawn: Drawn, subjects: Sequence[EvalSubject]) -> list[Image.Image]:
    """The images of `image_rows`, RGB, in the same order."""
    pairs = zip(drawn.images, drawn.paths, strict=True)
    loaded = ([Image.open(path).convert("RGB")] * len(w.subjects) for w, path in pairs)
    return [*(image for same in loaded for image in same), *(photo for t in subjects for photo in t.photos)]


def _drawn_row(w: EvalImage, i: int, file: str, subjects: Sequence[EvalSubject]) -> ImageScores:
    """The row of an image that is scored against subject `i`; one of two subjects names the other one as `beside`."""
    shown = " and ".join(subjects[o].identity for o in w.request.objects) or None
    about = {"asked": w.asked, "prompt": w.request.prompt, "seed": w.request.seed, "image": file}
    beside = next((subjects[other].identity for other in w.subjects if other != i), None)
    details = {"guidance": variant(w.condition).guidance, "steps": w.steps, "beside": beside}
    given = {name: value for name, value in details.items() if value is not None}
    return {**_row(w.condition, subjects[i].identity, w.kind, shown, bool(subjects[i].others)), **about, **given}


def _photo_row(t: EvalSubject, number: int) -> ImageScores:
    """A real photo, which is compared with the other ones; the only one is compared with the seen picture."""
    return {**_row(REAL, t.identity, "photo", t.identity, len(t.others) > 1), "photo": number}


def _row(condition: str, identity: str, kind: str, shown: str | None, other_photos: bool) -> ImageScores:
    row = {"condition": condition, "identity": identity, "kind": kind, "shown": shown}
    return {**row, "other_photos": float(other_photos)}


def find_objects(rows: Sequence[ImageScores], images: Sequence[Image.Image], find: Finder) -> Iterator[list[Mask]]:
    """The most confident detections of each image; none for images in a style, which changes outlines and colours."""
    for row, image in zip(rows, images, strict=True):
        yield [] if row["kind"] == "style" else find(np.asarray(image.convert("RGB")))[:MAX_OBJECTS]
