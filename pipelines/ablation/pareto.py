"""Plot fidelity against text alignment, one curve per cell over the guidance scale (matplotlib)."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.ablation.cells import OURS, Ablation
from taming_core.evaluation.intervals import Estimate

PANELS = {
    "design": "Network design", "tokens": "Tokens of an object", "regularizer": "Regularizers and input of the encoder",
    "tuning": "What is trained", "captions": "Caption scheme",
}  # fmt: skip
INK, FAINT, RULE = "#1d2025", "#6d727a", "#e4e5e8"
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b8860b")  # distinguishable with colour vision deficiency
MARKS = ("s", "^", "D", "v", "P")
HELP = (
    "Up: the image shows the same object.\n"
    "Right: it shows the scene and style of the prompt.\n\n"
    "A curve joins the evaluations of a cell at each\n"
    "guidance scale for the object: larger marks, larger\n"
    "scale, in numbers at the black curve. A cell is better\n"
    "where its curve lies further up and to the right.\n\n"
    "Black: the reference, the same in every panel. Its\n"
    "cross is the 95 % interval over objects and trainings.\n"
    "Differences to it have narrower intervals, since they\n"
    "are paired: significant ones are bold in the table."
)


@dataclass(frozen=True)
class Point:
    """One cell at one guidance scale."""

    cell: str
    scale: float
    text: Estimate
    fidelity: Estimate


def pareto(points: Sequence[Point], ablation: Ablation) -> Figure:
    """One panel per family of cells, with the reference in each, and an explanation in the last."""
    figure = Figure(figsize=(12.6, 7.8), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    families = {family: [c for c in ablation.run if ablation.cells[c].family == family] for family in PANELS}
    for axes, (family, cells) in zip(grid.flat, families.items(), strict=False):
        _panel(axes, PANELS[family], {c: [p for p in points if p.cell == c] for c in (OURS, *cells)}, ablation)
    grid[1, 2].set_axis_off()
    grid[1, 2].text(0.02, 0.95, HELP, transform=grid[1, 2].transAxes, va="top", color=FAINT, fontsize=9.5)
    figure.supxlabel("Right scene or style (share of images)", fontsize=11, color=INK)
    figure.supylabel("Likeness to the object (cosine of the judge's features)", fontsize=11, color=INK)
    return figure


def _panel(axes: Axes, title: str, curves: dict[str, list[Point]], ablation: Ablation) -> None:
    """The curves of one family."""
    for number, (cell, points) in enumerate(curves.items()):
        is_reference = cell == OURS
        colour, mark = (INK, "o") if is_reference else (COLOURS[(number - 1) % 5], MARKS[(number - 1) % 5])
        _curve(axes, points, ablation.cells[cell].title, colour, mark, is_reference)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelbottom=True, labelleft=True)
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=8.5, loc="best")


def _curve(axes: Axes, points: Sequence[Point], title: str, colour: str, mark: str, is_reference: bool) -> None:
    """One cell; the reference's points are labelled with their guidance scale."""
    x, y = [p.text.mean for p in points], [p.fidelity.mean for p in points]
    axes.plot(x, y, color=colour, linewidth=1.4, zorder=3)
    axes.plot([], [], color=colour, marker=mark, markersize=6, linewidth=1.4, label=title)  # the legend's
    axes.scatter(x, y, [22 + 26 * n for n in range(len(points))], color=colour, marker=mark, zorder=4, linewidth=0)
    for p in points if is_reference else []:
        axes.annotate(f"{p.scale:g}", (p.text.mean, p.fidelity.mean), (7, 5), textcoords="offset points",
                      fontsize=8.5, color=colour)  # fmt: skip
    if is_reference and points:
        _cross(axes, points[len(points) // 2])


def _cross(axes: Axes, p: Point) -> None:
    """The intervals of a point."""
    spans = [[[e.mean - e.low], [e.high - e.mean]] for e in (p.text, p.fidelity)]
    axes.errorbar([p.text.mean], [p.fidelity.mean], spans[1], spans[0], fmt="none", ecolor=FAINT, elinewidth=0.9,
                  zorder=2)  # fmt: skip
