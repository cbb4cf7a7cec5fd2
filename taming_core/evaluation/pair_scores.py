"""How alike two photos of an object are to each judge: what `taming eval --judge-check` checks.

Every function compares one reference with N candidates and returns N likenesses, the higher the more alike, as the
evaluation does for a drawn image; the object's mask is known here, where the evaluation detects it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
from PIL import Image

from taming_core.evaluation import shape, statistics
from taming_core.evaluation.corruptions import MaskedPhoto, layer_of
from taming_core.evaluation.judges import FILL, SIDE, Judge, composite_on_grey, pose_images
from taming_core.photos.masks import cutout

PairScore = Callable[[MaskedPhoto, Sequence[MaskedPhoto]], Sequence[float]]


def pair_scores(
    judge: Judge, strict_judge: Judge | None, others: Mapping[str, Judge] = MappingProxyType({})
) -> dict[str, PairScore]:
    """The scores of an evaluation that compare photos, by name.

    Args:
        judge: of the object.
        strict_judge: of the cut-out object.
        others: image networks of other scores by name, such as dino: compared whole, and with masked backgrounds.
    """
    strict = {} if strict_judge is None else {"strict judge": partial(score_posed, strict_judge)}
    scores: dict[str, PairScore] = {"object judge": partial(score_in_photo, judge), **strict, "shape": score_shape}
    for name, network in others.items():
        scores |= {name: partial(score_whole, network), f"{name} masked": partial(score_masked, network)}
    return scores


def score_in_photo(judge: Judge, reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """The reference's object on grey with whole photos, as the object judge compares them."""
    return cosines(judge, [_on_grey(reference)], [Image.fromarray(c.image) for c in candidates])


def score_whole(judge: Judge, reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """Whole photos with their backgrounds, as published scores compare them."""
    return cosines(judge, [Image.fromarray(reference.image)], [Image.fromarray(c.image) for c in candidates])


def score_masked(judge: Judge, reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """Photos whose background is grey."""
    on_grey = [composite_on_grey(layer_of(photo)) for photo in (reference, *candidates)]
    return cosines(judge, on_grey[:1], on_grey[1:])


def score_posed(judge: Judge, reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """Cut-outs in the best pose of the reference, as the strict judge compares them."""
    return cosines(judge, pose_images(_cut_out(reference)), [_on_grey(c) for c in candidates])


def score_shape(reference: MaskedPhoto, candidates: Sequence[MaskedPhoto]) -> list[float]:
    """Silhouettes and edges after the best alignment."""
    subject = shape.to_canvas(*reference)
    return [shape.compare(subject, shape.to_canvas(*c)).agreement for c in candidates]


def cosines(judge: Judge, poses: Sequence[Image.Image], images: Sequence[Image.Image]) -> list[float]:
    """The cosine of each of N images with the most similar of P poses of one object."""
    features = judge([*poses, *images])
    return statistics.best_pose_cosines(features[len(poses) :], features[None, : len(poses)])[:, 0].tolist()


def _cut_out(photo: MaskedPhoto) -> Image.Image:
    return Image.fromarray(cutout(np.ascontiguousarray(photo.image), photo.mask, SIDE, FILL))


def _on_grey(photo: MaskedPhoto) -> Image.Image:
    return composite_on_grey(_cut_out(photo))
