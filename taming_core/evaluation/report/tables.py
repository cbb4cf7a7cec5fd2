"""The tables of the report: scores of conditions, objects and strata, the check of the judges, and settings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from taming_core.evaluation.conditions import OURS, REAL
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES, ImageScores, Measure, Summary
from taming_core.evaluation.report.comparison import (
    BASELINES,
    LABELS,
    Cells,
    cells,
    costs,
    duration,
    is_better,
    paired_difference,
    size,
)
from taming_core.evaluation.result import Evaluation

# The measures of the first table, in its order, where they were taken.
HEADLINE = (
    "strict_pass", "strict_cosine", "judge_top1", "judge_cosine", "dino_masked", "dinov2_masked", "clip_i_b32",
    "dreamsim", "shape", "cp", "scene_accuracy", "style_accuracy", "clip_t_b32", "clip_t_l14", "pf", "cp_pf", "copying",
    "copy_score", "diversity", "cmmd", "kid",
)  # fmt: skip
COST_COLUMNS = (
    ("Time of a new object", "median over objects, on the machine of the evaluation"),
    ("Size of a new object", "bytes to keep of it"),
    ("Memory", "peak, above the loaded base"),
)


class Entry(NamedTuple):
    """One cell of a table."""

    text: str
    small: str = ""  # below the text
    value: float | None = None  # by which a column is sorted; None for words
    verdict: int = 0  # 1 better than this encoder beyond chance, -1 worse
    link: str = ""  # of a place in the page


class Table(NamedTuple):
    """Columns with explanations, and rows that begin with a name."""

    columns: list[tuple[str, str]]
    rows: list[list[Entry]]


ABSENT = Entry("–")


def headline(e: Evaluation) -> list[Measure]:
    """The measures of the first table that were taken."""
    taken = {key for of in e.summary.values() for key in of}
    known = {m.key: m for m in MEASURES}
    return [known[key] for key in HEADLINE if key in taken & known.keys()]


def conditions(e: Evaluation) -> list[str]:
    """The conditions that were drawn, in the order of tables, without those of a sweep."""
    return [c for c in LABELS if c in e.summary]


def estimate(m: Measure, e: Estimate | None, verdict: int = 0) -> Entry:
    """A mean with its interval."""
    if e is None:
        return ABSENT
    low = f"{100 * e.low:.0f}" if m.unit else m.format(e.low)
    return Entry(m.format(e.mean), f"{low} to {m.format(e.high)}", round(e.mean, 6), verdict)


def methods(e: Evaluation) -> Table:
    """A row for each condition, with the main scores and the costs of a new object."""
    measures, ours = headline(e), cells(e.rows, OURS)

    def row(condition: str) -> list[Entry]:
        theirs: Cells = cells(e.rows, condition) if condition in BASELINES else {}
        scores = [
            estimate(m, e.summary[condition].get(m.key), is_better(m, paired_difference(m, ours, theirs)))
            for m in measures
        ]
        return [Entry(LABELS[condition]), *scores, *(_cost(e, condition) if costs(e) else [])]

    columns: list[tuple[str, str]] = [
        ("Drawn by", ""),
        *((m.title, m.meaning) for m in measures),
        *(COST_COLUMNS if costs(e) else ()),
    ]
    return Table(columns, [row(c) for c in conditions(e)])


def _cost(e: Evaluation, condition: str) -> list[Entry]:
    cost = e.costs.get(condition)
    if cost is None:
        return [ABSENT] * 3
    memory = ABSENT if cost.peak_bytes is None else Entry(size(cost.peak_bytes), value=cost.peak_bytes)
    return [Entry(duration(cost.seconds), value=cost.seconds), Entry(size(cost.bytes), value=cost.bytes), memory]


def all_measures(e: Evaluation) -> Table:
    """A row for each measure that was taken, in every condition."""
    names = conditions(e)
    rows = [
        [Entry(m.title, m.meaning), *(estimate(m, e.summary[c].get(m.key)) for c in names)]
        for m in MEASURES
        if any(m.key in e.summary[c] for c in names)
    ]
    return Table([("Score", ""), *((LABELS[c], "") for c in names)], rows)


def objects(e: Evaluation) -> Table:
    """A row for each object: the means over its images by this encoder."""
    measures = [m for m in headline(e) if m.key in e.summary[OURS]]
    groups: dict[str, list[ImageScores]] = {}
    for r in e.rows:
        if r["condition"] == OURS:
            groups.setdefault(r["identity"], []).append(r)

    def mean(m: Measure, rows: Sequence[ImageScores]) -> Entry:
        values = [r[m.key] for r in rows if m.key in r]
        return Entry(m.format(fmean(values)), value=round(fmean(values), 6)) if values else ABSENT

    rows = [
        [Entry(t.identity, t.class_name or "", link=f"#object-{n}"), *(mean(m, groups[t.identity]) for m in measures)]
        for n, t in enumerate(e.subjects)
        if t.identity in groups
    ]
    return Table([("Object", ""), *((m.title, m.meaning) for m in measures)], rows)


def strata(e: Evaluation) -> list[tuple[str, Table]]:
    """For each stratum a row for each of its values in this encoder, the baselines and real photos."""
    return [(name, _stratum(values, headline(e))) for name, values in e.strata.items() if values]


def _stratum(values: Mapping[str, Summary], measures: Sequence[Measure]) -> Table:
    shown = [c for c in (OURS, *BASELINES, REAL) if any(c in of for of in values.values())]
    taken = [m for m in measures if any(m.key in of[c] for of in values.values() for c in shown if c in of)]
    rows = [
        [Entry(value), Entry(LABELS[c]), *(estimate(m, of[c].get(m.key)) for m in taken)]
        for value, of in values.items()
        for c in shown
        if c in of
    ]
    return Table([("Of", ""), ("Drawn by", ""), *((m.title, m.meaning) for m in taken)], rows)


def judge_check(e: Evaluation) -> Table | None:
    """A row for each judge and a column for each number of its check."""
    rows = {name: dict(flat(of)) for name, of in e.judge_check.items() if isinstance(of, Mapping) and of}
    keys = list(dict.fromkeys(key for of in rows.values() for key in of))
    if not keys:
        return None
    body = [[Entry(name), *(_plain(of.get(key)) for key in keys)] for name, of in rows.items()]
    return Table([("Judge", ""), *((key.replace("_", " "), "") for key in keys)], body)


def _plain(value: Any) -> Entry:
    """A number, a word, or a mean with the ends of its interval."""
    if isinstance(value, Mapping):
        mean, low, high = (float(value[key]) for key in ("mean", "low", "high"))  # type: ignore[reportUnknownArgumentType]
        return Entry(f"{mean:.2f}", f"{low:.2f} to {high:.2f}", mean)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ABSENT if value is None else Entry(str(value))
    return Entry(f"{value:.4g}", value=value)


def flat(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings, by their path; a list and a mean with its interval are one leaf.

    >>> list(flat({"sampling": {"steps": 9}, "scenes": ["in the snow", "underwater"]}))
    [('sampling: steps', 9), ('scenes', 'in the snow, underwater')]
    """
    if isinstance(value, Mapping) and not {"mean", "low", "high"} <= value.keys():  # type: ignore[reportUnknownMemberType]
        for name, inner in value.items():  # type: ignore[reportUnknownVariableType]
            yield from flat(inner, f"{key}: {name}" if key else str(name))  # type: ignore[reportUnknownArgumentType]
    elif isinstance(value, list | tuple):
        yield key, ", ".join(_text(v) for v in value)  # type: ignore[reportUnknownVariableType]
    else:
        yield key, value


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)


def settings(e: Evaluation) -> list[tuple[str, list[tuple[str, Any]]]]:
    """How it was measured, the protocol and the params, each a list of names and values."""
    folded = [("Protocol", list(flat(e.protocol))), ("Params", list(flat(e.params.model_dump(mode="json"))))]
    return [(title, values) for title, values in folded if values]
