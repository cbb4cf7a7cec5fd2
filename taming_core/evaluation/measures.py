"""What is measured of an image, and the means over images with their confidence intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share

ImageScores = dict[str, Any]  # of one image: what it shows, and a number for each measure that applies
Summary = Mapping[str, Mapping[str, Estimate]]  # condition -> measure -> its mean


class Measure(NamedTuple):
    """A score, its title and how it is formatted."""

    key: str
    unit: str  # % for a share of images
    title: str
    meaning: str
    lowest: float = -1.0  # the range, for a measure that is no share: that of cosines
    highest: float = 1.0
    higher_is_better: bool = True

    def format(self, value: float) -> str:
        """The number as text: a percentage, or two decimals."""
        return f"{100 * value:.0f} %" if self.unit else f"{value:.2f}"

    def estimate(self, values: Sequence[float], identities: Sequence[str]) -> Estimate:
        """The mean of values with its interval over identities; how it was measured is no sample and has none."""
        if self.key in HOW_MEASURED:
            mean = float(np.mean(values))
            return Estimate(mean, mean, mean, len(values))
        if self.unit:
            return estimate_share(values, identities)
        return estimate_mean(values, identities, low=self.lowest, high=self.highest)


# fmt: off
OF_OBJECTS = (
    Measure("judge_top1", "%", "Right object recognised", "the judge finds it most similar of all held-out objects"),
    Measure("judge_top5", "%", "Right object among five", "it is among the five most similar ones"),
    Measure("judge_top1_all", "%", "Recognised among all", "the same among the objects of every split"),
    Measure("strict_pass", "%", "Accepted by the strict judge", "the cut-out object's cosine reaches its threshold"),
    Measure("strict_top1", "%", "Recognised strictly", "the same with the strict judge, of the cut-out object"),
    Measure("strict_cosine", "", "Strict likeness", "mean cosine with the other photos; 0 without a detection"),
    Measure("strict_cosine_seen", "", "Strict, seen picture", "the same with the picture that the encoder saw"),
    Measure("judge_cosine", "", "Likeness to the object", "mean cosine of the judge's features with the other photos'"),
    Measure("judge_cosine_seen", "", "Likeness to the seen picture", "the same with the picture that the encoder saw"),
    Measure("copying", "", "Copying", "likeness to the seen picture less that to the other photos", -2.0, 2.0,
            higher_is_better=False),
    Measure("judge_cosine_other", "", "Likeness to the others", "mean cosine with other held-out objects; low is good",
            higher_is_better=False),
    Measure("donor_top1", "%", "Donor recognised", "the object whose tokens were used is the judge's most similar one"),
    Measure("shape", "", "Shape", "geometric mean of silhouette and edges", 0.0),
    Measure("shape_iou", "", "Silhouette", "overlap with another photo's silhouette after the best alignment", 0.0),
    Measure("shape_edges", "", "Edges", "F1 of outlines and inner edges after the best alignment", 0.0),
    Measure("shape_found", "%", "Object found", "the detector finds one; else shape and strict likeness are 0"),
    Measure("shape_flipped", "%", "Mirrored", "the best alignment mirrors the object", higher_is_better=False),
)
OF_TEXTS = (
    Measure("scene_accuracy", "%", "Right scene", "the text judge picks the requested scene among all"),
    Measure("style_accuracy", "%", "Right style", "the text judge picks the requested style among all"),
    Measure("style_judge_top1", "%", "Recognised in a style", "right object recognised, on images in a style"),
    Measure("diversity", "", "Diversity", "mean cosine distance of images of one object, by the text judge", 0.0, 2.0),
    Measure("other_photos", "%", "Measured on other photos", "the object has photos that the encoder did not see; "
            "without one, its scores are those against the seen picture"),
)
OF_VLM = (
    Measure("cp", "", "Concept preservation", "how alike the object is to the seen photo's, from 0 to 1, by the "
            "vision-language model", 0.0),
    Measure("pf", "", "Prompt following", "how well the image fits its prompt, from 0 to 1, by the same", 0.0),
    Measure("cp_pf", "", "CP x PF", "the product of the two for each image", 0.0),
    Measure("vlm_answered", "%", "Judged by the model", "all its answers about the image held a score; the others have "
            "no share in CP and PF"),
)
# fmt: on
MEASURES = (*OF_OBJECTS, *OF_TEXTS, *OF_VLM)
HOW_MEASURED = ("other_photos", "vlm_answered")


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
