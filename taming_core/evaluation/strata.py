"""The scores of parts of an evaluation: by class group, by difficulty of the object, and by kind of prompt."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from taming_core.evaluation import shape
from taming_core.evaluation.conditions import OURS
from taming_core.evaluation.measures import MEASURES, ImageScores, Summary, intervals, metrics, summary
from taming_core.evaluation.protocol import EvalSubject
from taming_core.language.class_groups import class_group

CLASS_GROUP, DIFFICULTY, PROMPT_KIND = "class group", "difficulty", "prompt kind"
LEVELS = ("easy", "medium", "hard")  # thirds of the evaluated objects
MIN_OBJECTS = 6  # two of each level
KINDS = ("scene", "style", "attribute", "action")  # of prompts
COMPARED = ("judge_cosine", "strict_cosine", "shape")  # measures of the table and of the printed lines

Strata = Mapping[str, Mapping[str, Summary]]  # such as "prompt kind" -> "style" -> the summary of these images


def add_strata(rows: Sequence[ImageScores], subjects: Sequence[EvalSubject]) -> list[ImageScores]:
    """The rows with the class and the difficulty of their object."""
    about = {s.identity: {"class": s.class_name, DIFFICULTY: round(difficulty(s.subject), 4)} for s in subjects}
    return [{**row, **about[row["identity"]]} for row in rows]


def difficulty(subject: Image.Image) -> float:
    """How intricate the silhouette of a cut-out (RGBA) is: outline squared / (4 pi area), which is about 1 for a disc.

    The inverse of the isoperimetric quotient. It is known before any drawing, needs no network, and predicted fidelity
    better than the number of colours, the inner edges or the agreement of the object's own photos:
    docs/explanation/evaluation.md.
    """
    rgba = np.asarray(subject.convert("RGBA"))
    silhouette = shape.to_canvas(np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] > 127).mask
    return float(shape.outline(silhouette).sum() ** 2 / (4 * np.pi * silhouette.sum()))


def strata(rows: Sequence[ImageScores]) -> Strata:
    """The summary of the rows of each value of each stratum; a stratum with a single value is left out."""
    level = levels({r["identity"]: r[DIFFICULTY] for r in rows})
    values: Mapping[str, Callable[[ImageScores], str | None]] = {
        CLASS_GROUP: lambda r: class_group(r["class"]),
        DIFFICULTY: lambda r: level.get(r["identity"]),
        PROMPT_KIND: lambda r: r["kind"] if r["kind"] in KINDS else None,  # photos have no prompt
    }
    found = {stratum: _summaries(rows, value) for stratum, value in values.items()}
    return {stratum: of for stratum, of in found.items() if len(of) > 1}


def _summaries(rows: Sequence[ImageScores], value: Callable[[ImageScores], str | None]) -> dict[str, Summary]:
    groups: dict[str, list[ImageScores]] = {}
    for row in rows:
        if (of := value(row)) is not None:
            groups.setdefault(of, []).append(row)
    order = {name: number for number, name in enumerate((*LEVELS, *KINDS))}
    return {of: summary(groups[of]) for of in sorted(groups, key=lambda name: (order.get(name, 0), name))}


def levels(difficulties: Mapping[str, float]) -> dict[str, str]:
    """The level of each object: thirds by rank, equal ones in the easier one; none of fewer than MIN_OBJECTS.

    >>> levels({"a": 1, "b": 2, "c": 3, "d": 3, "e": 5, "f": 6})["d"], levels({"a": 1})
    ('medium', {})
    """
    if len(difficulties) < MIN_OBJECTS:
        return {}
    cuts = np.quantile(list(difficulties.values()), [1 / 3, 2 / 3], method="inverted_cdf")
    return {i: LEVELS[int(np.searchsorted(cuts, value))] for i, value in difficulties.items()}


def table(strata: Strata) -> list[dict[str, Any]]:
    """The means of the compared measures with the object's tokens, one line for each value of each stratum."""
    return [
        {"stratum": stratum, "value": value}
        | {key: round(of[OURS][key].mean, 4) for key in COMPARED if key in of[OURS]}
        for stratum, of_values in strata.items()
        for value, of in of_values.items()
        if OURS in of
    ]


def content(strata: Strata) -> dict[str, Any]:
    """The content of strata.json: stratum -> value -> condition -> measure -> mean, ends of its interval and count."""

    def numbers(s: Summary) -> dict[str, Any]:
        means, ends = metrics(s), intervals(s)
        return {c: {key: {"mean": mean, **ends[c][key]} for key, mean in of.items()} for c, of in means.items()}

    return {stratum: {value: numbers(s) for value, s in of.items()} for stratum, of in strata.items()}


def sentences(strata: Strata) -> list[str]:
    """A line for each stratum whose values differ: where the intervals of the best and of the worst do not overlap."""
    return [line for stratum, of in strata.items() if (line := _sentence(stratum, of))]


def _sentence(stratum: str, of: Mapping[str, Summary]) -> str | None:
    for m in (m for m in MEASURES if m.key in COMPARED):
        means = {value: s[OURS][m.key] for value, s in of.items() if m.key in s.get(OURS, {})}
        if not means:
            continue
        worst, best = (pick(means, key=lambda value: means[value].mean) for pick in (min, max))
        if means[worst].high < means[best].low:
            high, low = m.format(means[best].mean), m.format(means[worst].mean)
            return f"by {stratum}: {m.title.lower()} {high} of {best}, {low} of {worst}"
    return None
