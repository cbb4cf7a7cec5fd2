"""All scores of all images, one row for each image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from taming_core.evaluation import object_scores, text_scores
from taming_core.evaluation.conditions import REAL, variant
from taming_core.evaluation.drawing import Drawn
from taming_core.evaluation.gallery import Known, gallery, known_objects
from taming_core.evaluation.judges import Judges, pose_images
from taming_core.evaluation.measures import ImageScores, Summary, summary
from taming_core.evaluation.protocol import EvalImage, EvalSubject, file_names
from taming_core.objects.subjects import Finder, Mask
from taming_core.params.sections import EvaluateParams
from taming_core.progress import track

MAX_OBJECTS = 3  # detections per image, most confident first, that are compared with the subject


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
    known = known_objects(folder, p.split, judges.objects, p.baseline_photos)
    text_features = judges.texts.images(images)
    rows = object_scores.add_judge_scores(rows, judges.objects(images), known)
    rows = text_scores.add_text_scores(rows, text_features, judges.texts.texts, p)
    masks = list(track(find_objects(rows, images, find), "find", len(rows)))
    rows = list(track(object_scores.add_shape_scores(rows, images, subjects, masks), "shape", len(rows)))
    if judges.strict is not None:
        posed = gallery(folder, p.split, judges.strict, pose_images, p.baseline_photos)
        rows = object_scores.add_strict_scores(
            rows, images, masks, judges.strict, posed, judges.strict.acceptance_threshold
        )
    rows = text_scores.add_diversity(rows, text_features)
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
    kind = variant(w.condition)
    details = {"guidance": kind.guidance, "steps": w.steps}
    given = {name: value for name, value in details.items() if value is not None}
    return {**_row(w.condition, subject.identity, w.kind, shown, bool(subject.others)), **about, **given}


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
