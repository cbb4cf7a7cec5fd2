"""Prompt following and diversity, by the text judge's features."""

from collections.abc import Callable, Sequence

from taming_core.evaluation import statistics
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.protocol import scene_prompt, style_prompt
from taming_core.evaluation.statistics import Features
from taming_core.params.sections import EvaluateParams

TextFeatures = Callable[[Sequence[str]], Features]


def add_text_scores(
    rows: Sequence[ImageScores], features: Features, texts: TextFeatures, p: EvaluateParams
) -> list[ImageScores]:
    """The rows with the scene or style that the text judge chooses, and whether it is the requested one.

    Whole prompts have no candidates and get neither.
    """
    candidates = {"scene": (p.scene_choices, scene_prompt), "style": (p.style_choices, style_prompt)}
    choices = {kind: (words, texts(list(map(prompt, words)))) for kind, (words, prompt) in candidates.items() if words}

    def scored(row: ImageScores, feature: Features) -> ImageScores:
        words, text_features = choices.get(row["kind"], ([], features))
        if row.get("asked") not in words:
            return row
        best = words[int(statistics.nearest_choice(feature[None], text_features)[0])]
        return {**row, "chosen": best, f"{row['kind']}_accuracy": float(best == row["asked"])}

    return [scored(row, feature) for row, feature in zip(rows, features, strict=True)]


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
