"""What an image has of the seen photo beyond what another true photo of the object has of it: copying.

Likeness rewards a pasted reference; these scores tell it from fidelity, since no other photo is so like the seen one.
"""

from collections.abc import Sequence

from taming_core.evaluation.judges import Judge
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.statistics import Features
from taming_core.evaluation.views import (
    ViewFeatures,
    Views,
    background_alone,
    best_object,
    by_identity,
    in_chunks,
    mask_of,
    other_numbers,
)


def add_copy_scores(rows: Sequence[ImageScores], views: Views, f: ViewFeatures, judge: Judge) -> list[ImageScores]:
    """The rows with `copy_score` of the whole image and `background_leakage` of the image without its object.

    Both are the cosine with the seen photo less the mean cosine of the other photos with it, by the object judge. An
    image in a style has none, nor has one of an object without other photos.
    """
    best = [best_object(row, i, f) for i, row in enumerate(rows)]
    pairs = zip(views.images, views.masks, best, strict=True)
    grounds = in_chunks(judge, (background_alone(i, None if n is None else masks[n]) for i, masks, n in pairs))
    of_photos = (background_alone(photo, mask_of(photo)) for s in views.subjects for photo in s.square_photos)
    photo_grounds = by_identity(in_chunks(judge, of_photos), views.subjects)

    def scored(i: int, row: ImageScores) -> ImageScores:
        photos = f.photos[row["identity"]]
        others = other_numbers(row, len(photos))
        if row["kind"] == "style" or not others:
            return row
        leakage = excess_likeness(grounds[i], photo_grounds[row["identity"]], others)
        return {**row, "copy_score": excess_likeness(f.images[i], photos, others), "background_leakage": leakage}

    return [scored(i, row) for i, row in enumerate(rows)]


def excess_likeness(image: Features, photos: Features, others: Sequence[int]) -> float:
    """The cosine of an image (E,) with the first of the photos (P, E), less the mean of the `others` with it.

    >>> import numpy as np
    >>> seen, other = np.eye(2, dtype=np.float32)
    >>> excess_likeness(seen, np.stack([seen, other]), [1]), excess_likeness(other, np.stack([seen, other]), [1])
    (1.0, 0.0)
    """
    return float(image @ photos[0] - (photos[list(others)] @ photos[0]).mean())
