"""What is measured of an image, and the means over images with their confidence intervals."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np

from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share, estimate_share_difference

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

    def estimate(self, values: Sequence[float], *factors: Sequence[str]) -> Estimate:
        """The mean of values with its interval over identities; how it was measured is no sample and has none."""
        if self.key in HOW_MEASURED:
            mean = float(np.mean(values))
            return Estimate(mean, mean, mean, len(values))
        if self.unit:
            return estimate_share(values, *factors)
        return estimate_mean(values, *factors, low=self.lowest, high=self.highest)

    def estimate_difference(self, values: Sequence[float], *factors: Sequence[str]) -> Estimate:
        """The mean of paired differences with its interval over identities."""
        if self.unit:
            return estimate_share_difference(values, *factors)
        width = self.highest - self.lowest
        return estimate_mean(values, *factors, low=-width, high=width)


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
OF_COPYING = (
    Measure("copy_score", "", "Copy score", "likeness to the seen photo beyond that of another true photo to it",
            -2.0, 2.0, higher_is_better=False),
    Measure("background_leakage", "", "Background leakage", "the same of the image and the photos without the object",
            -2.0, 2.0, higher_is_better=False),
)
OF_PAIRS = (
    Measure("both_found", "%", "Both objects found",
            "of images of two: the strict judge accepts both in the image, or recognises both if it has no threshold"),
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


def similarity_measures(key: str, title: str) -> tuple[Measure, ...]:
    """The cosines of a network with photos of the object."""
    return (
        Measure(key, "", title, "mean cosine of the whole image with the other photos"),
        Measure(f"{key}_seen", "", f"{title}, seen photo", "the same with the photo that the encoder saw"),
        Measure(f"{key}_masked", "", f"{title}, masked", "the same of the objects on grey; 0 without a detection"),
    )


def prompt_measures(key: str, title: str) -> tuple[Measure, ...]:
    """The cosines of a CLIP with prompts."""
    return (
        Measure(key, "", title, "cosine of the whole image with its prompt, which names the class"),
        Measure(f"{key}_masked", "", f"{title}, masked", "the same of the object on grey; 0 without a detection"),
    )


OF_SIMILARITY = (
    *similarity_measures("dino", "DINO"),
    *similarity_measures("dinov2", "DINOv2"),
    *similarity_measures("clip_i_b32", "CLIP-I, B/32"),
    *similarity_measures("clip_i_l14", "CLIP-I, L/14"),
    *prompt_measures("clip_t_b32", "CLIP-T, B/32"),
    *prompt_measures("clip_t_l14", "CLIP-T, L/14"),
)
OF_PERCEPTION = (
    Measure("dreamsim", "", "DreamSim", "mean distance of the whole image to the other photos", 0.0, 2.0, False),
    Measure("dreamsim_seen", "", "DreamSim, seen photo", "the same to the photo that the encoder saw", 0.0, 2.0, False),
    Measure("dreamsim_masked", "", "DreamSim, masked", "the same of the objects on grey; 1 without a detection",
            0.0, 2.0, False),
    Measure("lpips", "", "LPIPS", "mean distance of the whole image to the other photos", 0.0, inf, False),
    Measure("lpips_seen", "", "LPIPS, seen photo", "the same to the photo that the encoder saw", 0.0, inf, False),
    Measure("diversity_lpips", "", "Diversity, LPIPS", "mean LPIPS of the images of one object and prompt", 0.0, inf),
)  # fmt: skip
# Of all images of a condition; the kernels bound the range.
OF_CONDITIONS = (
    Measure("cmmd", "", "CMMD", "distance of the images' distribution to that of the photos, by CLIP", -40.0, 40.0,
            False),
    Measure("kid", "", "KID", "the same with the polynomial kernel of KID", -16.0, 16.0, False),
)  # fmt: skip
MEASURES = (*OF_OBJECTS, *OF_TEXTS, *OF_PAIRS, *OF_COPYING, *OF_SIMILARITY, *OF_PERCEPTION, *OF_CONDITIONS, *OF_VLM)
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
    return {m.key: m.estimate([r[m.key] for r in group], *factors(group)) for m, group in rows_with if group}


def factors(rows: Sequence[ImageScores]) -> list[list[str]]:
    """What intervals are over: the object of each row, and the object beside it where every image shows two.

    An image of two objects has something of both, and so is not independent of the other images of either.
    """
    keys = ("identity", "beside") if all("beside" in r for r in rows) else ("identity",)
    return [[r[key] for r in rows] for key in keys]


def metrics(summary: Summary) -> dict[str, dict[str, float]]:
    """Means only, to four decimals: what `dvc metrics` compares."""
    return {c: {key: round(e.mean, 4) for key, e in of.items()} for c, of in summary.items()}


def intervals(summary: Summary) -> dict[str, dict[str, dict[str, float]]]:
    """The ends of each interval, to four decimals, and the number of values."""
    return {
        c: {key: {"low": round(e.low, 4), "high": round(e.high, 4), "count": e.count} for key, e in of.items()}
        for c, of in summary.items()
    }
