"""All cells side by side: table.md and table.csv, pareto.png, and sheet.png to look at.

Example:  python -m pipelines.ablation.table --made out/ablation
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from pipelines.ablation.cells import CELLS, MADE, OURS, PARAMS, Ablation, load
from pipelines.ablation.pareto import Point, pareto
from pipelines.ablation.results import DRAWN, UNDRAWN, Cost, Entry, Measure, cost, entries, evaluated, mean, verdicts
from taming_core.errors import TamingError
from taming_core.evaluation.judges import on_grey
from taming_core.evaluation.protocol import subjects
from taming_core.evaluation.statistics import Estimate
from taming_core.figures.contact_sheet import message
from taming_core.figures.image_grid import Cell, grid, save
from taming_core.params.load import Params, load_params
from taming_core.params.sections import EvaluateParams
from taming_core.tables.shards import RUNS

SIDE = 112  # pixels of a picture on the sheet
FIGURES = ("mean", "low", "high")


def main(
    made: Annotated[Path, typer.Option("--made", help="Where the cells' encoders and measurements lie.")] = MADE,
    cells: Annotated[Path, typer.Option("--cells", help="What the cells are.")] = CELLS,
    reference: Annotated[Path, typer.Option("--reference", help="The params of the reference cell.")] = PARAMS,
    runs: Annotated[Path, typer.Option("--runs", help="Where trainings leave their records.")] = RUNS,
) -> None:
    """Write the table and the two pictures."""
    told, p = load(cells), load_params(reference)
    scale = own_scale(told, p.evaluate)
    found = entries(told, made)
    costs = {cell: cost(made / "encoders" / cell, runs) for cell in told.run}
    (made / "table.csv").write_text(as_csv(found, costs, told), encoding="utf-8")
    (made / "table.md").write_text(as_markdown(found, costs, told, p, scale), encoding="utf-8")
    pareto(points(told, made), told).savefig(made / "pareto.png", dpi=110)
    save(sheet(told, made, scale), made / "sheet.png")
    print((made / "table.md").read_text(encoding="utf-8"))


def own_scale(told: Ablation, p: EvaluateParams) -> float:
    """The guidance that the table is of.

    Raises:
        TamingError: the cells are not drawn with it.
    """
    if p.sampling.guidance_object not in told.scales:
        raise TamingError(
            f"evaluate.sampling.guidance_object is {p.sampling.guidance_object}, with which no cell is drawn. Set it "
            f"to one of {told.scales}, or add it to scales in cells.yaml."
        )
    return p.sampling.guidance_object


def as_csv(found: Sequence[Entry], costs: Mapping[str, Cost], told: Ablation) -> str:
    """A line for each measure of each cell at each guidance."""
    text = StringIO()
    ends = [f"difference{end}" for end in ("", "_low", "_high")]
    columns = ("cell", "family", "guidance", "measure", *FIGURES, "count", *ends, "sure")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for e in found:
        known = {"cell": e.cell, "family": told.cells[e.cell].family, "guidance": e.scale, "measure": e.measure.key}
        beside = dict(zip(ends, figures(e.difference), strict=True)) if e.difference else {}
        sure = {"sure": int(e.sure)} if e.difference else {}
        writer.writerow({**known, **dict(zip(FIGURES, figures(e.found), strict=True)), "count": e.found.count,
                         **beside, **sure})  # fmt: skip
    for cell, spent in costs.items():
        for key, value in (("trained", spent.trained), ("seconds", spent.seconds)):
            writer.writerow({"cell": cell, "family": told.cells[cell].family, "measure": key, "mean": value})
    return text.getvalue()


def figures(e: Estimate) -> list[float]:
    """Mean and ends to five digits."""
    return [round(v, 5) for v in (e.mean, e.low, e.high)]


def as_markdown(found: Sequence[Entry], costs: Mapping[str, Cost], told: Ablation, p: Params, scale: float) -> str:
    """The tables that people read, at one guidance."""
    shown = [e for e in found if e.scale in (None, scale)]
    compared = [e for e in shown if e.difference]
    lines = [
        "# Ablation", "",
        f"Every cell is a training of {p.train.steps} steps of {p.train.batch_size} at {p.materialize.size} pixels, "
        f"and differs from `{OURS}` in one choice. Intervals are of 95 %, over things (of the plain error over "
        f"photos). Images are drawn with guidance {scale:g} towards the object.", "",
        f"**Bold** differences are those whose interval leaves 0 out: {sum(e.sure for e in compared)} of "
        f"{len(compared)}. If no choice mattered, about {len(compared) / 20:.0f} would be bold by chance.", "",
        *choices(told, costs), "",
        *section("Drawn images", DRAWN, shown, told), *section("Measured without drawing", UNDRAWN, shown, told),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def choices(told: Ablation, costs: Mapping[str, Cost]) -> list[str]:
    """What each cell is, and what its training took."""
    lines = ["| cell | what it is | trained parameters | seconds |", "|---|---|---:|---:|"]
    for cell in told.run:
        spent = costs[cell]
        took = "–" if spent.seconds is None else f"{spent.seconds:.0f}"
        lines.append(f"| {told.cells[cell].title} | {told.cells[cell].why} | {spent.trained / 1e6:.2f} M | {took} |")
    return lines


def section(title: str, measures: Sequence[Measure], found: Sequence[Entry], told: Ablation) -> list[str]:
    """The values of some measures with their intervals, then the differences to the reference."""
    by_place = {(e.cell, e.measure.key): e for e in found}
    there = [m for m in measures if (OURS, m.key) in by_place]
    paired = [m for m in there if any(e.difference for e in found if e.measure.key == m.key)]
    values = rows_of(told.run, there, told, lambda cell, m: value(by_place[cell, m.key]))
    differences = rows_of(
        [c for c in told.run if c != OURS], paired, told, lambda cell, m: difference(by_place[cell, m.key])
    )
    meanings = [f"- {m.title} ({m.better} is better): {m.meaning}" for m in there]
    return [f"## {title}", "", *meanings, "", *values, "", f"### Difference to `{OURS}`", "", *differences, ""]


def rows_of(cells: Sequence[str], measures: Sequence[Measure], told: Ablation, said: Any) -> list[str]:
    """A Markdown table of cells by measures."""
    lines = [f"| | {' | '.join(m.title for m in measures)} |", "|---" + "|---" * len(measures) + "|"]
    return [*lines, *(f"| {told.cells[c].title} | {' | '.join(said(c, m) for m in measures)} |" for c in cells)]


def value(e: Entry) -> str:
    """A mean with its interval."""
    return f"{e.measure.said(e.found.mean)} ({e.measure.said(e.found.low)} to {e.measure.said(e.found.high)})"


def difference(e: Entry) -> str:
    """A difference with its interval, bold where that leaves 0 out."""
    d = e.difference
    assert d is not None
    said, low, high = (e.measure.said_difference(v) for v in (d.mean, d.low, d.high))
    return f"**{said}** ({low} to {high})" if e.sure else f"{said} ({low} to {high})"


def points(told: Ablation, made: Path) -> list[Point]:
    """Every cell at every guidance: likeness, and how often scene or style is right."""
    return [
        Point(cell, scale, *_alignment_and_fidelity(verdicts(evaluated(made, cell, scale))))
        for cell in told.run
        for scale in sorted(told.scales)
    ]


def _alignment_and_fidelity(rows: Sequence[Mapping[str, Any]]) -> Iterator[Estimate]:
    """Text first."""
    right = {(r["identity"], r["image"]): r[f"{r['kind']}_accuracy"] for r in rows}
    yield mean(right)
    yield mean({(r["identity"], r["image"]): r["judge_cosine"] for r in rows if "judge_cosine" in r})


def sheet(told: Ablation, made: Path, scale: float) -> Image.Image:
    """The things, cut out, then a row for each cell: the same things, prompts and seeds."""
    seen = {identity: on_grey(subject) for _, identity, subject in subjects(made / "unseen-rows")}
    shown = chosen(verdicts(evaluated(made, OURS, scale)), told)
    head = [Cell(message("the thing", SIDE)), *(Cell(seen[r["identity"]]) for r in shown)]
    rows = [head, *(_row(told.cells[c].title, evaluated(made, c, scale), shown) for c in told.run)]
    heading = f"One row for each choice; the same things, prompts and seeds; guidance {scale:g} towards the object"
    return grid(heading, ["", *(r["prompt"] for r in shown)], rows, SIDE)


def chosen(rows: Sequence[Mapping[str, Any]], told: Ablation) -> list[Mapping[str, Any]]:
    """The first prompts of the first things."""
    identities = list(dict.fromkeys(r["identity"] for r in rows))[: told.sheet.things]
    return [r for i in identities for r in [r for r in rows if r["identity"] == i][: told.sheet.prompts]]


def _row(title: str, folder: Path, shown: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """One cell's images."""
    return [Cell(message(title, SIDE)), *(Cell(drawn(folder / "images" / r["image"])) for r in shown)]


def drawn(path: Path) -> Image.Image:
    """An image of an evaluation."""
    with Image.open(path) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    typer.run(main)
