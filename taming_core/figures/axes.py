"""How the axes of all plots look."""

from matplotlib.axes import Axes


def style_axes(axes: Axes) -> None:
    """No frame but the ground line, and small figures."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
