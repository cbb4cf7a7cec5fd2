"""Compare all cells: table.md, table.csv, pareto.png and sheet.png.

Example:  python -m pipelines.ablation.table --out out/ablation
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from pipelines.ablation.cells import CELLS, OURS, OUT, PARAMS, Ablation, load
from pipelines.ablation.pareto import Point, pareto
from pipelines.ablation.results import (
    DENOISING,
    IMAGES,
    Cost,
    Entry,
    Measure,
    Sample,
    cost,
    entries,
    evaluation_folder,
    image_scores,
    mean,
)
from taming_core.errors import TamingError
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.judges import composite_on_grey
from taming_core.evaluation.protocol import all_subjects
from taming_core.figures.contact_sheet import text_tile
from taming_core.figures.image_grid import Cell, grid, save
from taming_core.params.load import Params, load_params
from taming_core.params.sections import EvaluateParams
from taming_core.tables.shards import RUNS

SEEDS, OBJECTS = 3, 16  # trainings and objects of a cell, below which the table says what it cannot tell
SIDE = 112  # pixels of a picture on the sheet
FIGURES = ("mean", "low", "high")


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder of the cells' encoders and measurements.")] = OUT,
    cells: Annotated[Path, typer.Option("--cells", help="File with all cells.")] = CELLS,
    reference: Annotated[Path, typer.Option("--reference", help="Params of the reference cell.")] = PARAMS,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the training logs.")] = RUNS,
) -> None:
    """Write the tables and the two images."""
    ablation, p = load(cells), load_params(reference)
    scale = reference_scale(ablation, p.evaluate)
    rows = entries(ablation, out)
    costs = {
        cell: cost([out / "encoders" / cell / str(seed) for seed in ablation.seeds], runs) for cell in ablation.run
    }
    (out / "table.csv").write_text(as_csv(rows, costs, ablation), encoding="utf-8")
    (out / "table.md").write_text(as_markdown(rows, costs, ablation, p, scale), encoding="utf-8")
    pareto(points(ablation, out), ablation).savefig(out / "pareto.png", dpi=110)
    save(sheet(ablation, out, scale), out / "sheet.png")
    print((out / "table.md").read_text(encoding="utf-8"))


def reference_scale(ablation: Ablation, p: EvaluateParams) -> float:
    """The guidance scale of the table.

    Raises:
        TamingError: the cells are not evaluated at it.
    """
    if p.sampling.guidance_object not in ablation.scales:
        raise TamingError(
            f"evaluate.sampling.guidance_object is {p.sampling.guidance_object}, at which no cell is evaluated. Set it "
            f"to one of {ablation.scales}, or add it to scales in cells.yaml."
        )
    return p.sampling.guidance_object


def as_csv(rows: Sequence[Entry], costs: Mapping[str, Cost], ablation: Ablation) -> str:
    """A line per metric, cell and guidance scale."""
    text = StringIO()
    ends = [f"difference{end}" for end in ("", "_low", "_high")]
    columns = ("cell", "family", "guidance", "measure", *FIGURES, "count", *ends, "sure")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for e in rows:
        known = {"cell": e.cell, "family": ablation.cells[e.cell].family, "guidance": e.scale, "measure": e.measure.key}
        difference_columns = dict(zip(ends, figures(e.difference), strict=True)) if e.difference else {}
        significant = {"sure": int(e.significant)} if e.difference else {}
        writer.writerow({**known, **dict(zip(FIGURES, figures(e.value), strict=True)), "count": e.value.count,
                         **difference_columns, **significant})  # fmt: skip
    for cell, spent in costs.items():
        for key, value in (("trained", spent.trained), ("seconds", spent.seconds)):
            writer.writerow({"cell": cell, "family": ablation.cells[cell].family, "measure": key, "mean": value})
    return text.getvalue()


def figures(e: Estimate) -> list[float]:
    """Mean and interval, rounded to five digits."""
    return [round(v, 5) for v in (e.mean, e.low, e.high)]


def as_markdown(rows: Sequence[Entry], costs: Mapping[str, Cost], ablation: Ablation, p: Params, scale: float) -> str:
    """The tables at one guidance scale."""
    selected = [e for e in rows if e.scale in (None, scale)]
    compared = [e for e in selected if e.difference]
    lines = [
        "# Ablation", "",
        f"Every cell is {trainings(ablation)} of {p.train.steps} steps of {p.train.batch_size} at "
        f"{p.materialize.size} pixels, and differs from `{OURS}` in one choice. Intervals are 95 %, over objects (of "
        f"the plain error over photos){' and trainings' if len(ablation.seeds) > 1 else ''}. Images are drawn with "
        f"guidance scale {scale:g} for the object.", "",
        *limits(ablation, p),
        f"**Bold** differences have an interval that excludes 0: {sum(e.significant for e in compared)} of "
        f"{len(compared)}. If no choice had an effect, at most about {len(compared) / 20:.0f} would be bold by "
        "chance.", "",
        *choices(ablation, costs), "",
        *section("Generated images", IMAGES, selected, ablation),
        *section("Denoising error", DENOISING, selected, ablation),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def trainings(ablation: Ablation) -> str:
    """How many trainings a cell has."""
    return f"{len(ablation.seeds)} training{'' if len(ablation.seeds) == 1 else 's'}"


def limits(ablation: Ablation, p: Params) -> list[str]:
    """What the table cannot tell, where it is of few trainings or objects."""
    text = list[str]()
    if len(ablation.seeds) < SEEDS:
        text.append(f"**With {trainings(ablation)} per cell the table cannot tell a choice from the seed**: a "
                    f"bold difference is one of these weights, and others may not have it. That takes {SEEDS} or more "
                    "(`seeds` in cells.yaml).")  # fmt: skip
    if p.evaluate.objects < OBJECTS:
        text.append(f"**With {p.evaluate.objects} objects it can tell large differences between images only**: those "
                    f"that are not bold may be real. That takes {OBJECTS} or more (`evaluate.objects` in "
                    "params.yaml).")  # fmt: skip
    return [line for sentence in text for line in (sentence, "")]


def choices(ablation: Ablation, costs: Mapping[str, Cost]) -> list[str]:
    """The description, size and training time of each cell."""
    lines = ["| cell | description | trained parameters | seconds |", "|---|---|---:|---:|"]
    for cell in ablation.run:
        spent = costs[cell]
        took = "–" if spent.seconds is None else f"{spent.seconds:.0f}"
        lines.append(
            f"| {ablation.cells[cell].title} | {ablation.cells[cell].why} | {spent.trained / 1e6:.2f} M | {took} |"
        )
    return lines


def section(title: str, measures: Sequence[Measure], rows: Sequence[Entry], ablation: Ablation) -> list[str]:
    """Metrics with their intervals, then the differences to the reference."""
    by_cell = {(e.cell, e.measure.key): e for e in rows}
    available = [m for m in measures if (OURS, m.key) in by_cell]
    paired = [m for m in available if any(e.difference for e in rows if e.measure.key == m.key)]
    values = markdown_table(ablation.run, available, ablation, lambda cell, m: value(by_cell[cell, m.key]))
    differences = markdown_table(
        [c for c in ablation.run if c != OURS], paired, ablation, lambda cell, m: difference(by_cell[cell, m.key])
    )
    meanings = [f"- {m.title} ({m.better} is better): {m.meaning}" for m in available]
    return [f"## {title}", "", *meanings, "", *values, "", f"### Difference to `{OURS}`", "", *differences, ""]


def markdown_table(
    cells: Sequence[str], measures: Sequence[Measure], ablation: Ablation, format_cell: Any
) -> list[str]:
    """A Markdown table of cells by measures."""
    lines = [f"| | {' | '.join(m.title for m in measures)} |", "|---" + "|---" * len(measures) + "|"]
    return [
        *lines,
        *(f"| {ablation.cells[c].title} | {' | '.join(format_cell(c, m) for m in measures)} |" for c in cells),
    ]


def value(e: Entry) -> str:
    """A mean with its interval."""
    mean_text, low, high = (e.measure.formatted(v) for v in (e.value.mean, e.value.low, e.value.high))
    return f"{mean_text} ({low} to {high})"


def difference(e: Entry) -> str:
    """A difference with its interval, bold where that excludes 0."""
    d = e.difference
    assert d is not None
    mean_text, low, high = (e.measure.formatted_difference(v) for v in (d.mean, d.low, d.high))
    return f"**{mean_text}** ({low} to {high})" if e.significant else f"{mean_text} ({low} to {high})"


def points(ablation: Ablation, out: Path) -> list[Point]:
    """Every cell at every guidance scale: likeness, and how often scene or style is right."""
    return [
        Point(cell, scale, *_alignment_and_fidelity(_images_of_all_trainings(ablation, out, cell, scale)))
        for cell in ablation.run
        for scale in sorted(ablation.scales)
    ]


def _images_of_all_trainings(ablation: Ablation, out: Path, cell: str, scale: float) -> dict[Sample, Mapping[str, Any]]:
    folders = {seed: evaluation_folder(out, cell, seed, scale) for seed in ablation.seeds}
    return {(seed, r["identity"], r["image"]): r for seed, folder in folders.items() for r in image_scores(folder)}


def _alignment_and_fidelity(rows: Mapping[Sample, Mapping[str, Any]]) -> Iterator[Estimate]:
    """Text alignment, then fidelity."""
    measures = {m.key: m for m in IMAGES}
    yield mean({s: r[f"{r['kind']}_accuracy"] for s, r in rows.items()}, measures["scene_accuracy"])
    yield mean({s: r["judge_cosine"] for s, r in rows.items() if "judge_cosine" in r}, measures["judge_cosine"])


def sheet(ablation: Ablation, out: Path, scale: float) -> Image.Image:
    """The subject images, then a row per cell, of its first training, with the same objects, prompts and noise."""
    seed = ablation.seeds[0]
    subjects = all_subjects(out / "unseen-rows")
    subject_images = {identity: composite_on_grey(subject) for _, identity, subject in subjects}
    selected = chosen(image_scores(evaluation_folder(out, OURS, seed, scale)), ablation)
    head = [Cell(text_tile("subject", SIDE)), *(Cell(subject_images[r["identity"]]) for r in selected)]
    folders = {c: evaluation_folder(out, c, seed, scale) for c in ablation.run}
    rows = [head, *(_row(ablation.cells[c].title, folder, selected) for c, folder in folders.items())]
    heading = f"One row per cell, of seed {seed}; the same objects, prompts and noise; guidance scale {scale:g}"
    return grid(heading, ["", *(r["prompt"] for r in selected)], rows, SIDE)


def chosen(rows: Sequence[Mapping[str, Any]], ablation: Ablation) -> list[Mapping[str, Any]]:
    """The first prompts of the first objects."""
    identities = list(dict.fromkeys(r["identity"] for r in rows))[: ablation.sheet.objects]
    return [r for i in identities for r in [r for r in rows if r["identity"] == i][: ablation.sheet.prompts]]


def _row(title: str, folder: Path, selected: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """The images of one cell."""
    return [Cell(text_tile(title, SIDE)), *(Cell(drawn(folder / "images" / r["image"])) for r in selected)]


def drawn(path: Path) -> Image.Image:
    """Open an image of an evaluation."""
    with Image.open(path) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    typer.run(main)
