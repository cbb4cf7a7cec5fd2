"""A judge's features of every held-out identity, and how alike an image is to each.

An image is compared with the identity's other photos, since a copy of the one that the encoder saw would pass for
fidelity. What it has in common with the seen picture is a score beside it (Sim(GT) and Sim(Ref) in Xu et al.,
"WithAnyone", arXiv 2510.14975, 2025).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.evaluation import statistics
from taming_core.evaluation.judges import Judge, composite_on_grey
from taming_core.evaluation.protocol import IdentityViews, all_subjects, identity_views
from taming_core.evaluation.statistics import Features
from taming_core.storage.paths import AnyPath

T = TypeVar("T")
Floats = NDArray[np.float32]
Posed = Callable[[Image.Image], list[Image.Image]]  # a cut-out (RGBA) -> the images of it that a judge gets


class Gallery(NamedTuple):
    """The judge's features of the photos of every held-out identity."""

    indices: dict[str, int]  # identity -> its number
    features: NDArray[np.float32]  # (V, P, E) of V photos in P poses
    owners: NDArray[np.int64]  # (V,) number of the identity; of each the seen picture is first


class Known(NamedTuple):
    """The object judge's features of all identities."""

    held_out: Gallery
    others: Features  # (A, E) of the first photo of every identity in the other splits


class Likeness(NamedTuple):
    """Cosines of N images with the identities."""

    own: Floats  # (N,) with the image's own: the mean over its other photos, or with the seen picture if it has none
    seen: Floats  # (N,) with the picture of the own identity that the encoder saw
    all: Floats  # (N, G) with every identity, as `own`


def gallery(folder: AnyPath, split: str, judge: Judge, posed: Posed, baseline_photos: int = 1) -> Gallery:
    """The judge's features of the photos of all identities of a split, without those that baselines train on."""
    return of_views(identity_views(folder, split, baseline_photos), judge, posed)


def of_views(views: Iterable[IdentityViews], judge: Judge, posed: Posed) -> Gallery:
    """The judge's features of these identities."""
    names: list[str] = []
    features: list[Features] = []
    owners: list[int] = []
    for v in views:
        images = [posed(cutout) for cutout in (v.seen, *v.others)]
        flat = judge([image for poses in images for image in poses])
        features.append(flat.reshape(len(images), -1, flat.shape[1]))
        owners += [len(names)] * len(images)
        names.append(v.identity)
    return Gallery({name: i for i, name in enumerate(names)}, np.concatenate(features), np.array(owners))


def likeness(features: Features, rows: Sequence[dict[str, Any]], g: Gallery) -> Likeness:
    """Compare the features (N, E) of N images with the identities; a real photo is not compared with itself."""
    cosines = statistics.best_pose_cosines(features, g.features)
    own = [reference_weights(g, g.indices[r["identity"]], r.get("photo")) for r in rows]
    everyone = np.stack([reference_weights(g, i) for i in range(len(g.indices))])
    seen = [int(np.flatnonzero(g.owners == g.indices[r["identity"]])[0]) for r in rows]
    all_cosines, own_cosines = cosines @ everyone.T, (cosines * np.stack(own)).sum(1)
    all_cosines[np.arange(len(rows)), [g.indices[r["identity"]] for r in rows]] = own_cosines
    return Likeness(own_cosines, cosines[np.arange(len(rows)), seen], all_cosines)


def reference_weights(g: Gallery, identity: int, photo: int | None = None) -> Floats:
    """Weights (V,) of the photos that an image of the identity is compared with, which sum to 1.

    Args:
        g: the gallery.
        identity: its number.
        photo: the number of the other photo that the image is, if it is one.
    """
    seen, *others = np.flatnonzero(g.owners == identity).tolist()
    chosen = [view for number, view in enumerate(others) if number != photo] or [seen]
    weights = np.zeros(len(g.owners), np.float32)
    weights[chosen] = 1 / len(chosen)
    return weights


def known_objects(folder: AnyPath, split: str, judge: Judge, baseline_photos: int = 1) -> Known:
    """The judge's features of the identities of all splits, without the photos that baselines train on."""
    held_out = gallery(folder, split, judge, lambda cutout: [composite_on_grey(cutout)], baseline_photos)
    subjects = (subject for s, _, subject in all_subjects(folder) if s != split)
    features = [judge([composite_on_grey(subject) for subject in chunk]) for chunk in chunks(subjects)]
    return Known(held_out, np.concatenate([held_out.features[:0, 0], *features]))


def chunks(items: Iterable[T], size: int = 64) -> Iterator[list[T]]:
    """The items in lists, so that only one list is in memory.

    >>> list(chunks("abc", 2))
    [['a', 'b'], ['c']]
    """
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
