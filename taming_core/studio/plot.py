"""Curves as SVG in the colours of the page, so that they are drawn without a script and are sharp on any screen."""

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10

from taming_core.figures.curves import COLOURS, NAMES

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 190, 46, 8, 8, 20  # pixels
DEFAULT = "#2f6db3"
Points = Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count`.

    >>> ticks(0.0, 1.0), ticks(3, 3)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [3])
    """
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.75)
    first = -floor(-low / step)
    return [round(n * step, 12) for n in range(first, floor(high / step + 1e-9) + 1)]


def plot(title: str, curves: Mapping[str, Points]) -> str:
    """A plot of named curves over steps (SVG in a figure); "" if none has a point.

    Args:
        title: what the vertical axis shows.
        curves: points (step, value) of each, by the key of the metric.
    """
    drawn = {name: points for name, points in curves.items() if points}
    everything = [point for points in drawn.values() for point in points]
    if not everything:
        return ""
    xs, ys = ([p[i] for p in everything] for i in (0, 1))
    low, high = (min(0.0, min(ys)), max(ys)) if max(ys) > min(ys) else (min(ys) - 0.5, max(ys) + 0.5)
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - first) / (last - first), (y - low) / (high - low)
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    parts = [_grid_line(y, at(first, y)[1]) for y in ticks(low, high)]
    parts += [
        f'<text x="{at(x, low)[0]}" y="{HEIGHT - 4}" text-anchor="middle">{x:g}</text>' for x in ticks(first, last)
    ]
    for name, points in drawn.items():
        line = " ".join(f"{x},{y}" for x, y in (at(*point) for point in points))
        hint = f"<title>{escape(NAMES.get(name, name))}</title>"
        parts.append(f'<polyline points="{line}" stroke="{_colour(name)}">{hint}</polyline>')
    legend = "".join(
        f'<span style="--colour: {_colour(name)}">{escape(NAMES.get(name, name))}</span>' for name in drawn
    )
    return (
        f"<figure><figcaption>{escape(title)}{legend if len(drawn) > 1 else ''}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _grid_line(value: float, y: float) -> str:
    return (f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>')  # fmt: skip


def _colour(name: str) -> str:
    """The colour that figures give a metric; the loss has that of the text."""
    return "currentColor" if name == "loss" else COLOURS.get(name, DEFAULT)
