"""The style of all plots."""

from typing import Any

from matplotlib.axes import Axes


def style_axes(axes: Axes) -> None:
    """Only the bottom spine, no ticks, small labels."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    untyped: Any = axes
    untyped.tick_params(length=0, labelsize=9)
