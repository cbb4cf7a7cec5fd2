"""The main scores of every condition as Markdown, with intervals and costs, and how they change over steps.

Example:  python -m pipelines.benchmark.table --in out/benchmark/evaluation --out out/benchmark/table.md
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from taming_core.evaluation.conditions import OURS, REAL, in_order, name_of, variant
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES, ImageScores, Summary, summary
from taming_core.files import read_json, replacing

TITLES = {m.key: m for m in MEASURES}
SCORES = ("strict_pass", "strict_cosine", "dino_masked", "judge_top1", "shape", "scene_accuracy", "style_accuracy",
          "clip_t_b32", "copy_score", "background_leakage", "diversity")  # fmt: skip
SEEN = ("judge_cosine", "judge_cosine_seen", "dino", "dino_seen", "copy_score", "background_leakage")
CURVE = ("strict_pass", "strict_cosine", "dino_masked", "judge_cosine", "scene_accuracy")
COSTS = {"seconds": "seconds", "bytes": "KB", "peak_bytes": "MB of memory"}
SIZES = {"seconds": 1, "bytes": 1 << 10, "peak_bytes": 1 << 20}


def markdown(rows: Sequence[ImageScores], timings: Mapping[str, float]) -> str:
    """All tables."""
    of_all = summary(rows)
    whole = [c for c in in_order(of_all) if variant(c) == variant(variant(c).of)]
    lines = [
        "## Fidelity, text and cost", "", *table(of_all, whole, SCORES, timings), "",
        "## Likeness and copying", "", *table(of_all, whole, SEEN), "",
        "## Over steps and guidance", "",
        f"Of the {len(controls(rows))} objects that every variant was drawn for.", "",
        *table(curve := summary(of_controls(rows)), [c for c in in_order(curve) if has_variants(c, curve)], CURVE),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def has_variants(condition: str, of: Iterable[str]) -> bool:
    """Whether a condition is a variant, or other conditions are variants of it."""
    return condition == REAL or any(c != variant(c).of == variant(condition).of for c in of)


def controls(rows: Sequence[ImageScores]) -> set[str]:
    """The objects that all variants were drawn for; all objects where there are no variants."""
    drawn = {c: {r["identity"] for r in rows if r["condition"] == c} for c in {r["condition"] for r in rows}}
    variants = [identities for c, identities in drawn.items() if c != variant(c).of]
    return set.intersection(*variants) if variants else drawn[OURS]


def of_controls(rows: Sequence[ImageScores]) -> list[ImageScores]:
    """The rows of these objects."""
    chosen = controls(rows)
    return [r for r in rows if r["identity"] in chosen]


def table(
    of: Summary, conditions: Sequence[str], keys: Sequence[str], timings: Mapping[str, float] | None = None
) -> list[str]:
    """A row for each condition, a column for each measure that was taken, and for each cost."""
    taken = [key for key in keys if any(key in of[c] for c in conditions)]
    costs = COSTS if timings else {}
    heads = ["", *(TITLES[key].title for key in taken), *costs.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for c in conditions:
        scores = [score(key, of[c].get(key)) for key in taken]
        name = "this encoder" if c == OURS else name_of(c)
        lines.append(f"| {' | '.join([name, *scores, *(cost(timings or {}, c, name) for name in costs)])} |")
    return lines


def score(key: str, e: Estimate | None) -> str:
    """A mean and its interval; a dash where it was not taken."""
    if e is None:
        return "–"
    low, mean, high = (TITLES[key].format(value) for value in (e.low, e.mean, e.high))
    return f"{mean} ({low.removesuffix(' %')} to {high.removesuffix(' %')})"


def cost(timings: Mapping[str, float], condition: str, name: str) -> str:
    """What a new object costs in a condition, in the unit of COSTS; a dash where it costs nothing."""
    value = timings.get(("" if condition == OURS else f"{condition}_") + f"{name}_per_object")
    return (
        "–" if value is None else f"{value / SIZES[name]:,.2f}" if name == "seconds" else f"{value / SIZES[name]:,.0f}"
    )


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of scores.jsonl."""
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()]


def main(
    evaluation: Annotated[Path, typer.Option("--in", help="The output folder of `taming eval`.")],
    out: Annotated[Path, typer.Option("--out", help="The Markdown file to write.")],
) -> None:
    """Write the tables of an evaluation."""
    with replacing(out) as part:
        part.write_text(markdown(read_rows(evaluation), read_json(evaluation / "timings.json")), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    typer.run(main)
