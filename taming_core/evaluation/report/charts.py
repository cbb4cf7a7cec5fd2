"""Charts as inline SVG: they take their colours from the page, so that dark mode reaches them."""

from collections.abc import Sequence
from math import log10
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, HEIGHT = 440, 320  # units of the view box: text of 12 stays readable at the width of a phone
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 46
# Circle, square, triangle, diamond, triangle and cross, so that nothing is told by colour alone.
MARKERS = (
    "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6Z", "M-5-5H5V5H-5Z", "M0-7 6.5 5H-6.5Z", "M0-7 6 0 0 7-6 0Z",
    "M0 7-6.5-5H6.5Z", "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
)  # fmt: skip


class Point(NamedTuple):
    """A value with its interval in each direction; without one, both ends are the value."""

    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    note: str  # beside the point
    text: str  # of the tooltip, and for those who do not see the chart


class Series(NamedTuple):
    """Points of one colour and shape, joined by a line if `joined`."""

    name: str
    colour: str
    marker: int  # of MARKERS
    points: Sequence[Point]
    joined: bool = False


class Chart(NamedTuple):
    """Series over two axes."""

    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    x_unit: str = ""  # % for shares
    y_unit: str = ""
    log_x: bool = False


class Axis(NamedTuple):
    """A scale from values to units of the view box."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value, kept inside the axis."""
        share = (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return round(self.start + min(max(share, 0), 1) * (self.end - self.start), 1)

    def _scaled(self, value: float) -> float:
        return log10(max(value, self.low)) if self.log else value

    def ticks(self) -> list[float]:
        """Round values inside the axis."""
        locator = LogLocator(10, numticks=6) if self.log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        return [float(v) for v in locator.tick_values(self.low, self.high) if self.low <= v <= self.high]


def axis(values: Sequence[float], start: float, end: float, log: bool = False) -> Axis:
    """An axis that holds the values with some room beside them."""
    low, high = min(values), max(values)
    if log:
        return Axis(low / 2, high * 2, start, end, True)
    room = max((high - low) * 0.06, 0.01)
    return Axis(low - room, high + room, start, end)


def scatter(chart: Chart) -> Markup:
    """The chart as SVG, with a legend below it as HTML."""
    points = [p for s in chart.series for p in s.points]
    x = axis([v for p in points for v in (p.x, *p.x_ends)], LEFT, WIDTH - RIGHT, chart.log_x)
    y = axis([v for p in points for v in (p.y, *p.y_ends)], HEIGHT - BOTTOM, TOP)
    body = [*_grid(chart, x, y), *(part for s in chart.series for part in _series(s, x, y))]
    label = f"{chart.title}. {'; '.join(p.text for p in points)}."
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        '<ul class="legend">{}</ul></figure>'
    ).format(chart.title, WIDTH, HEIGHT, label, _joined(body), _joined(_key(s) for s in chart.series))


def _joined(parts: object) -> Markup:
    return Markup("").join(parts)  # type: ignore[arg-type]


def _grid(chart: Chart, x: Axis, y: Axis) -> list[Markup]:
    """Lines at round values, their numbers, and the titles of the axes."""
    down = Markup('<path class="grid" d="M{0} {1}V{2}"/><text x="{0}" y="{3}" text-anchor="middle">{4}</text>')
    along = Markup('<path class="grid" d="M{0} {1}H{2}"/><text x="{3}" y="{4}" text-anchor="end">{5}</text>')
    titles = Markup(
        '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text class="axis" transform="translate(13 {})rotate(-90)" text-anchor="middle">{}</text>'
    ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, chart.x_title, (TOP + HEIGHT - BOTTOM) / 2, chart.y_title)
    return [
        *(down.format(x.at(v), y.start, y.end, y.start + 17, _number(v, chart.x_unit)) for v in x.ticks()),
        *(along.format(x.start, y.at(v), x.end, x.start - 6, y.at(v) + 4, _number(v, chart.y_unit)) for v in y.ticks()),
        titles,
    ]


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.0f} %" if unit else f"{value:g}"


def _series(s: Series, x: Axis, y: Axis) -> list[Markup]:
    line = "M" + "L".join(f"{x.at(p.x)} {y.at(p.y)}" for p in s.points)
    joined = [Markup('<path class="line" stroke="{}" d="{}"/>').format(s.colour, line)] if s.joined else []
    return [*joined, *(_point(p, s, x, y) for p in s.points)]


def _point(p: Point, s: Series, x: Axis, y: Axis) -> Markup:
    at_x, at_y = x.at(p.x), y.at(p.y)
    bars = f"M{x.at(p.x_ends[0])} {at_y}H{x.at(p.x_ends[1])}M{at_x} {y.at(p.y_ends[0])}V{y.at(p.y_ends[1])}"
    note = Markup('<text class="note" x="{}" y="{}">{}</text>').format(at_x + 8, at_y - 7, p.note) if p.note else ""
    return Markup(
        '<g><title>{}</title><path class="bar" stroke="{}" d="{}"/>'
        '<path class="mark" fill="{}" transform="translate({} {})" d="{}"/>{}</g>'
    ).format(p.text, s.colour, bars, s.colour, at_x, at_y, _marker(s), note)


def _marker(s: Series) -> str:
    return MARKERS[s.marker % len(MARKERS)]


def _key(s: Series) -> Markup:
    return Markup('<li><svg viewBox="-8 -8 16 16" aria-hidden="true"><path fill="{}" d="{}"/></svg>{}</li>').format(
        s.colour, _marker(s), s.name
    )


class Bar(NamedTuple):
    """One line of an interval chart."""

    name: str
    colour: str
    mean: float
    low: float
    high: float
    text: str  # the mean, as it is written


def intervals(title: str, bars: Sequence[Bar]) -> Markup:
    """One measure in each condition: a dot and its interval, a line each, as SVG."""
    step, left = 24, 150
    ends = [v for b in bars for v in (b.low, b.high)]
    x = axis([min(0.0, *ends), *ends], left, WIDTH - 60)
    lines = [
        Markup(
            '<text x="0" y="{0}">{1}</text><path class="grid" d="M{2} {3}H{4}"/><path class="bar" stroke="{5}" '
            'd="M{6} {3}H{7}"/><circle class="mark" fill="{5}" cx="{8}" cy="{3}" r="5"/>'
            '<text class="value" x="{9}" y="{0}" text-anchor="end">{10}</text>'
        ).format(
            n * step + 16,
            b.name,
            left,
            n * step + 12,
            WIDTH - 60,
            b.colour,
            x.at(b.low),
            x.at(b.high),
            x.at(b.mean),
            WIDTH,
            b.text,
        )
        for n, b in enumerate(bars)
    ]
    label = f"{title}: {', '.join(f'{b.name} {b.text}' for b in bars)}."
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        "</figure>"
    ).format(title, WIDTH, step * len(bars) + 2, label, _joined(lines))
