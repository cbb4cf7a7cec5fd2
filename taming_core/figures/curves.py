"""Training metrics over steps, as a figure (matplotlib)."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taming_core.figures.axes import style_axes

COLOURS = {
    "loss": "#33373d", "denoising": "#2f6db3", "held_out": "#2a8f6a", "identity": "#d8703a", "localization": "#7a5ba8",
    "grad_norm": "#2f6db3", "learning_rate": "#2f6db3",
}  # fmt: skip
TERMS = ("loss", "denoising", "held_out", "identity", "localization")
NAMES = {"held_out": "denoising, held out"}
PANELS = {"loss": TERMS, "gradient norm": ("grad_norm",), "learning rate": ("learning_rate",)}

Number = float | int | None
Line = Mapping[str, Number]


def curves(lines: Sequence[Line]) -> Figure:
    """Loss and its terms, that of held-out rows, gradient norm and learning rate: raw values faint, averages bold."""
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    panels = figure.subplots(len(PANELS), 1, sharex=True, height_ratios=(3, 1.5, 1))
    for axes, (title, keys) in zip(panels, PANELS.items(), strict=True):
        for key in keys:
            draw(axes, key, [(line["step"], line[key]) for line in lines if line.get(key) is not None])
        axes.set_ylabel(title, fontsize=9)
        axes.grid(axis="y", color="#e4e5e8", linewidth=0.8)
        style_axes(axes)
        axes.yaxis.get_offset_text().set_fontsize(9)
    panels[0].legend(frameon=False, ncols=len(TERMS), fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    panels[-1].set_xlabel("step", fontsize=9)
    figure.align_ylabels()
    return figure


def draw(axes: Axes, key: str, points: Sequence[tuple[Number, Number]]) -> None:
    """The curve of one metric; nothing if no step has it."""
    if points:
        steps, values = zip(*points, strict=True)
        width = 1 if key == "learning_rate" else 1 + len(values) // 50  # the rate has no noise
        untyped: Any = axes
        untyped.plot(steps, values, color=COLOURS[key], alpha=0.25, linewidth=0.8)
        untyped.plot(steps, smooth(values, width), color=COLOURS[key], linewidth=1.6, label=NAMES.get(key, key))


def smooth(values: Sequence[Any], width: int) -> list[float]:
    """The moving average of the last `width` values, or of as many as there are.

    >>> smooth([2.0, 4.0, 6.0], 2)
    [2.0, 3.0, 5.0]
    """
    parts = [values[max(0, n - width) : n] for n in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]
