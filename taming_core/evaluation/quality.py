"""Image quality: how far the images of a condition, all together, are from the subjects' real photos.

CMMD: Jayasumana et al., "Rethinking FID", arXiv 2401.09603, 2024, equation 5. KID: Binkowski et al., arXiv 1801.01401,
2018, of CLIP's features instead of Inception's. Both are the unbiased squared maximum mean discrepancy (Gretton et al.,
"A kernel two-sample test", 2012, equation 3), which may be below zero.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from taming_core.evaluation.conditions import REAL
from taming_core.evaluation.intervals import Estimate, student_t
from taming_core.evaluation.measures import MEASURES, ImageScores, Summary
from taming_core.evaluation.statistics import Features
from taming_core.evaluation.views import ViewFeatures

SIGMA, SCALE = 10.0, 1000.0  # of CMMD

Matrix = NDArray[np.float64]
Kernel = Callable[[Matrix], Matrix]  # of cosines


def cmmd_kernel(cosines: Matrix) -> Matrix:
    """The Gaussian kernel of features of unit length, times the scale of CMMD.

    >>> cmmd_kernel(np.ones((1, 1))).item()
    1000.0
    """
    return SCALE * np.exp((cosines - 1) / SIGMA**2)  # the squared distance is 2 - 2 cosine


def kid_kernel(cosines: Matrix) -> Matrix:
    """The polynomial kernel of KID, with gamma 1 for features of unit length.

    >>> kid_kernel(np.ones((1, 1))).item()
    8.0
    """
    return (cosines + 1) ** 3


KERNELS: Mapping[str, Kernel] = {"cmmd": cmmd_kernel, "kid": kid_kernel}


def discrepancy(xx: Matrix, xy: Matrix, yy: Matrix) -> float:
    """The squared maximum mean discrepancy of N and M samples, unbiased, from kernels (N, N), (N, M) and (M, M).

    Raises:
        ValueError: fewer than two samples.
    """
    if min(xy.shape) < 2:
        raise ValueError("a discrepancy of fewer than two samples")
    return _mean_of_different(xx) + _mean_of_different(yy) - 2 * float(xy.mean())


def _mean_of_different(kernel: Matrix) -> float:
    """The mean of a kernel (N, N) without its diagonal."""
    count = len(kernel)
    return float(kernel.sum() - np.trace(kernel)) / (count * (count - 1))


def add_quality(
    summary: Summary, rows: Sequence[ImageScores], f: ViewFeatures | None, name: str | None
) -> dict[str, Mapping[str, Estimate]]:
    """The summary with the quality `name` of each condition; images in a style differ from photos and do not count."""
    if f is None or name is None:
        return dict(summary)
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row["kind"] != "style" and row["condition"] != REAL:
            groups.setdefault(row["condition"], []).append(i)
    photos = np.concatenate(list(f.photos.values()))
    owners = [identity for identity, of in f.photos.items() for _ in of]
    found = {
        condition: estimate(f.images[group], [rows[i]["identity"] for i in group], photos, owners, name)
        for condition, group in groups.items()
        if len(group) > 1 and len(photos) > 1
    }
    return {c: {**of, name: found[c]} if c in found else of for c, of in summary.items()}


def estimate(
    images: Features, identities: Sequence[str], photos: Features, owners: Sequence[str], name: str
) -> Estimate:
    """A quality of images with photos, with the jackknife interval over objects, of which both are left out at a time.

    Args:
        images: (N, E), of unit length.
        identities: of the images.
        photos: (M, E), of unit length.
        owners: the identities of the photos.
        name: cmmd or kid.
    """
    x, y, measure = images.astype(np.float64), photos.astype(np.float64), {m.key: m for m in MEASURES}[name]
    xx, xy, yy = (KERNELS[name](a @ b.T) for a, b in ((x, x), (x, y), (y, y)))
    mean = discrepancy(xx, xy, yy)
    kept = [(np.array(identities) != o, np.array(owners) != o) for o in sorted(set(identities))]
    without = [discrepancy(xx[a][:, a], xy[a][:, b], yy[b][:, b]) for a, b in kept if min(a.sum(), b.sum()) > 1]
    if len(without) < max(2, len(kept)):
        return Estimate(mean, measure.lowest, measure.highest, len(x))
    half = student_t(len(without) - 1) * jackknife_error(without)
    return Estimate(mean, mean - half, mean + half, len(x))


def jackknife_error(without: Sequence[float]) -> float:
    """The standard error of a statistic from its values without each of the objects.

    Efron and Tibshirani, "An introduction to the bootstrap", 1993, equation 11.5.

    >>> round(jackknife_error([1.0, 2.0, 3.0]), 4) == round(sqrt(4 / 3), 4)
    True
    """
    return sqrt((len(without) - 1) * float(np.var(without)))
