"""The scores of an evaluation as CSV files for `dvc plots`, and as PNG plots (matplotlib)."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from taming_core.evaluation.conditions import COLOURS, NAMES, OURS
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES, ImageScores, Summary
from taming_core.evaluation.report import tradeoffs
from taming_core.evaluation.result import Evaluation
from taming_core.figures.axes import style_axes

SHOWN = (
    "judge_top1", "strict_top1", "strict_pass", "judge_cosine", "judge_cosine_seen", "shape", "scene_accuracy",
    "style_accuracy",
)  # fmt: skip
PER_OBJECT = (
    "judge_top1", "strict_top1", "strict_pass", "judge_cosine", "strict_cosine", "shape", "scene_accuracy",
    "style_accuracy",
)  # fmt: skip
MAX_DOTS = 60  # objects in the plot; the table has all
DOTS = {"judge_cosine": ("#2f6db3", "likeness"), "strict_cosine": ("#7a5ba8", "strict likeness"),
        "shape": ("#d8703a", "shape")}  # fmt: skip


def write(folder: Path, e: Evaluation) -> None:
    """Write fidelity.csv, scenes.csv, styles.csv, per_object.csv, pareto.csv, cost.csv and two plots as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "fidelity.csv", ("condition", "measure", "score", "low", "high"), fidelity(e.summary))
    for kind in ("scene", "style"):
        write_csv(folder / f"{kind}s.csv", ("asked", "chosen"), choices(e.rows, kind))
    means = per_object(e.rows)
    write_csv(folder / "per_object.csv", ("identity", *PER_OBJECT), means)
    write_csv(folder / "pareto.csv", ("condition", "guidance", "text", "fidelity", "low", "high"), pareto(e))
    write_csv(folder / "cost.csv", ("condition", "seconds", "fidelity", "low", "high"), cost(e))
    _save(bars(e.summary), folder / "fidelity.png")
    _save(dots(means[:MAX_DOTS]), folder / "per_object.png")


def pareto(e: Evaluation) -> list[dict[str, Any]]:
    """Fidelity and text of this encoder at each guidance, and of each baseline, on the same objects and prompts."""
    keys = tradeoffs.first_taken(e, tradeoffs.FIDELITY), tradeoffs.first_taken(e, tradeoffs.TEXT)
    if keys[0] is None or keys[1] is None:
        return []
    return [
        {"condition": s.condition, "guidance": s.setting, "text": round(s.x.mean, 4), **_ends(s.fidelity)}
        for s in tradeoffs.pareto(e, keys[0], keys[1])
        if isinstance(s.x, Estimate)
    ]


def cost(e: Evaluation) -> list[dict[str, Any]]:
    """Fidelity and the seconds of a new object, of each condition that has costs."""
    measure = tradeoffs.first_taken(e, tradeoffs.FIDELITY)
    samples = tradeoffs.cost(e, measure) if measure else []
    return [{"condition": s.condition, "seconds": s.x, **_ends(s.fidelity)} for s in samples]


def _ends(e: Estimate) -> dict[str, float]:
    return {"fidelity": round(e.mean, 4), "low": round(e.low, 4), "high": round(e.high, 4)}


def _save(figure: Any, path: Path) -> None:  # Any: matplotlib types savefig partly
    figure.savefig(path, dpi=130)


def fidelity(summary: Summary) -> list[dict[str, Any]]:
    """Every mean with its interval, one row each."""
    return [
        {"condition": c, "measure": m.key, "score": round(e.mean, 4), "low": round(e.low, 4), "high": round(e.high, 4)}
        for c, of in summary.items()
        for m in MEASURES
        if (e := of.get(m.key))
    ]


def choices(rows: Sequence[ImageScores], kind: str) -> list[dict[str, Any]]:
    """The requested scene or style and the text judge's choice, for each image with the object's tokens."""
    of_kind = (r for r in rows if r["condition"] == OURS and r["kind"] == kind and "chosen" in r)
    return [{"asked": r["asked"], "chosen": r["chosen"]} for r in of_kind]


def per_object(rows: Sequence[ImageScores]) -> list[dict[str, Any]]:
    """The means over the images of each object, the best shape first."""
    ours = [r for r in rows if r["condition"] == OURS]
    identities = dict.fromkeys(r["identity"] for r in ours)
    means = [{"identity": i, **_mean_scores([r for r in ours if r["identity"] == i])} for i in identities]
    return sorted(means, key=lambda r: -r.get("shape", 0))


def _mean_scores(rows: Sequence[ImageScores]) -> dict[str, float]:
    values = {key: [r[key] for r in rows if key in r] for key in PER_OBJECT}
    return {key: round(sum(v) / len(v), 4) for key, v in values.items() if v}


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header and one line per row; missing values stay empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _axes(figure: Figure) -> Any:  # Any: matplotlib types most of their methods partly
    return figure.subplots()


def bars(summary: Summary) -> Figure:
    """The main measures of every condition, with their intervals."""
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    axes = _axes(figure)
    titles = {m.key: m.title for m in MEASURES}
    keys = [key for key in SHOWN if any(key in of for of in summary.values())]
    conditions = [c for c in NAMES if c in summary]
    width = 0.8 / max(len(conditions), 1)
    for n, condition in enumerate(conditions):
        entries = [(i, summary[condition][key]) for i, key in enumerate(keys) if key in summary[condition]]
        x = [i + (n - (len(conditions) - 1) / 2) * width for i, _ in entries]
        spans = [[e.mean - e.low for _, e in entries], [e.high - e.mean for _, e in entries]]
        axes.bar(x, [e.mean for _, e in entries], 0.9 * width, color=COLOURS[condition], label=NAMES[condition])
        axes.errorbar(x, [e.mean for _, e in entries], spans, fmt="none", ecolor="#33373d", elinewidth=1, capsize=2)
    axes.set_xticks(range(len(keys)), [fill(titles[key], 14) for key in keys])
    axes.set_xlim(-0.5, len(keys) - 0.5)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.05)
    axes.legend(frameon=False, ncols=min(len(conditions), 4), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    style_axes(axes)
    return figure


def dots(means: Sequence[Mapping[str, Any]]) -> Figure:
    """Likeness, strict likeness and shape of each object, where they were measured."""
    figure = Figure(figsize=(8.4, 1.1 + 0.28 * len(means)), layout="constrained")
    axes = _axes(figure)
    heights = range(len(means))[::-1]
    for key, (colour, label) in DOTS.items():
        if any(key in m for m in means):
            axes.scatter([m.get(key, 0) for m in means], heights, color=colour, s=34, label=label, zorder=3)
    axes.set_yticks(heights, [m["identity"] for m in means])
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", color="#e4e5e8", linewidth=0.8)
    if any(key in m for m in means for key in DOTS):  # none of images in styles alone
        axes.legend(frameon=False, ncols=len(DOTS), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    style_axes(axes)
    return figure
