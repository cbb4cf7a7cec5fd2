"""What the report plots: fidelity against text over guidance, against costs, and over training steps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from taming_core.evaluation.conditions import COLOURS, NAMES, OURS, REAL, Variant, variant
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES, ImageScores, Measure
from taming_core.evaluation.report.charts import Bar, Chart, Point, Series, intervals, scatter
from taming_core.evaluation.report.comparison import BASELINES, LABELS, costs, duration
from taming_core.evaluation.report.tables import conditions, headline
from taming_core.evaluation.result import Evaluation

# The first one taken of each is plotted: of the cut-out object, and against photos that the encoder did not see.
FIDELITY = ("strict_cosine", "dinov2_masked", "dino_masked", "judge_cosine")
TEXT = ("clip_t_l14", "clip_t_b32", "scene_accuracy", "pf")
MEASURE = {m.key: m for m in MEASURES}


class Sample(NamedTuple):
    """One point: a condition, or one at another guidance or after some training steps."""

    condition: str  # without the guidance or the steps
    setting: float | None  # guidance or steps
    fidelity: Estimate
    x: Estimate | float  # the text score, the seconds or the steps


def first_taken(e: Evaluation, keys: Iterable[str]) -> Measure | None:
    """The first of the measures that this encoder's images have."""
    return next((MEASURE[key] for key in keys if key in MEASURE and key in e.summary[OURS]), None)


def groups(e: Evaluation, wanted: Sequence[str]) -> dict[Variant, list[ImageScores]]:
    """The rows of every wanted condition and of its variants."""
    found: dict[Variant, list[ImageScores]] = {}
    for r in e.rows:
        if (v := variant(r["condition"])).of in wanted:
            found.setdefault(v, []).append(r)
    return found


def shared(found: Mapping[Any, Sequence[ImageScores]]) -> dict[Any, list[ImageScores]]:
    """Only the images of objects and prompts that every group has, so that points can be compared."""
    keys = [{(r["identity"], r.get("asked")) for r in rows} for rows in found.values()]
    both = keys[0].intersection(*keys) if keys else set[tuple[Any, Any]]()
    return {g: [r for r in rows if (r["identity"], r.get("asked")) in both] for g, rows in found.items()}


def mean(m: Measure, rows: Sequence[ImageScores]) -> Estimate | None:
    """The mean over images that have the measure."""
    some = [r for r in rows if m.key in r]
    return m.estimate([r[m.key] for r in some], [r["identity"] for r in some]) if some else None


def pareto(e: Evaluation, fidelity: Measure, text: Measure) -> list[Sample]:
    """Fidelity and text of this encoder at each guidance, and of each baseline."""
    found = {v: rows for v, rows in groups(e, (OURS, *BASELINES)).items() if v.steps is None}
    samples = [(v, mean(fidelity, rows), mean(text, rows)) for v, rows in shared(found).items()]
    own = {OURS: e.params.sampling.guidance_object}
    return sorted(
        (Sample(v.of, own.get(v.of) if v.guidance is None else v.guidance, f, t) for v, f, t in samples if f and t),
        key=lambda s: (list(NAMES).index(s.condition), s.setting or 0),
    )


def cost(e: Evaluation, fidelity: Measure) -> list[Sample]:
    """Fidelity and the seconds of a new object, of each condition that has costs."""
    of = costs(e)
    wanted = [c for c in (OURS, *BASELINES) if c in of and of[c].seconds > 0]
    found = {v: rows for v, rows in groups(e, wanted).items() if v == Variant(v.of)}
    samples = [(v.of, mean(fidelity, rows)) for v, rows in shared(found).items()]
    return [Sample(c, None, f, of[c].seconds) for c, f in samples if f]


def steps(e: Evaluation, fidelity: Measure) -> list[Sample]:
    """Fidelity of each baseline after some training steps, the whole training last."""
    found = groups(e, BASELINES)
    curved = {v.of for v in found if v.steps is not None}
    taken = {v: rows for v, rows in found.items() if v.of in curved and rows[0].get("steps") is not None}
    samples = [(v.of, float(rows[0]["steps"]), mean(fidelity, rows)) for v, rows in shared(taken).items() if rows]
    return sorted((Sample(c, at, f, at) for c, at, f in samples if f and at), key=lambda s: (s.condition, s.x))


def _point(s: Sample, fidelity: Measure, x: Measure | None, unit: str) -> Point:
    """A sample as a point with its words."""
    at, ends = (s.x.mean, (s.x.low, s.x.high)) if isinstance(s.x, Estimate) else (s.x, (s.x, s.x))
    value = x.format(at) if x else duration(at) if unit == "s" else f"{at:g} {unit}"
    guided = f" at guidance {s.setting:g}" if s.setting is not None and unit != "steps" else ""
    note = f"{s.setting:g}" if guided and s.condition == OURS else ""
    where = f"{x.title.lower()} {value}" if x else value
    text = f"{LABELS[s.condition]}{guided}: {fidelity.title.lower()} {fidelity.format(s.fidelity.mean)}, {where}"
    return Point(at, s.fidelity.mean, ends, (s.fidelity.low, s.fidelity.high), note, text)


def _series(samples: Sequence[Sample], fidelity: Measure, x: Measure | None, unit: str, joined: bool) -> list[Series]:
    names = dict.fromkeys(s.condition for s in samples)
    lines = {c: [_point(s, fidelity, x, unit) for s in samples if s.condition == c] for c in names}
    marker = {c: n for n, c in enumerate(LABELS)}
    return [Series(LABELS[c], COLOURS[c], marker[c], points, joined and len(points) > 1) for c, points in lines.items()]


def charts(e: Evaluation) -> list[Markup]:
    """The plots for which there are points to compare."""
    fidelity, text = first_taken(e, FIDELITY), first_taken(e, TEXT)
    found: list[Markup] = []
    if fidelity and text and len(samples := pareto(e, fidelity, text)) > 1:
        title = "Fidelity against text; this encoder's guidance beside its points"
        series = _series(samples, fidelity, text, "", True)
        found.append(scatter(Chart(title, text.title, fidelity.title, series, text.unit, fidelity.unit)))
    if fidelity and len(samples := cost(e, fidelity)) > 1:
        series = _series(samples, fidelity, None, "s", False)
        title, x_title = "Fidelity against the time of a new object", "seconds, logarithmic"
        found.append(scatter(Chart(title, x_title, fidelity.title, series, y_unit=fidelity.unit, log_x=True)))
    if fidelity and len(samples := steps(e, fidelity)) > 1:
        series = _series(samples, fidelity, None, "steps", True)
        title = "Fidelity over training steps of the baselines"
        found.append(scatter(Chart(title, "steps", fidelity.title, series, y_unit=fidelity.unit)))
    return found


def interval_charts(e: Evaluation) -> list[Markup]:
    """Each main score with its interval in every condition."""
    return [
        intervals(
            m.title if m.higher_is_better else f"{m.title}, lower is better",
            [
                Bar(LABELS[c], COLOURS[c], of.mean, of.low, of.high, m.format(of.mean))
                for c in conditions(e)
                if (of := e.summary[c].get(m.key))
            ],
        )
        for m in headline(e)
        if any(m.key in e.summary[c] for c in conditions(e) if c not in (OURS, REAL))
    ]
