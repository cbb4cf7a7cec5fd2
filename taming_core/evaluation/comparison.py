"""Two evaluations of one protocol: the differences of every measure, paired by image, with their intervals."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, cast

from taming_core.errors import TamingError
from taming_core.evaluation.conditions import OURS
from taming_core.evaluation.measures import MEASURES, ImageScores, Measure, factors
from taming_core.files import read_json, read_text, replacing, write_json
from taming_core.storage.paths import AnyPath

NOT_COMPARED = "other_photos"  # how it was measured, which the protocol says
SHORTENED = 40  # characters of a value in a message


@dataclass(frozen=True)
class Results:
    """What an evaluation left in its folder."""

    folder: Path
    protocol: Mapping[str, Any]
    rows: Sequence[ImageScores]
    metrics: Mapping[str, Mapping[str, float]]


class Difference(NamedTuple):
    """A measure of one condition in both evaluations, over the images that both have."""

    condition: str
    measure: str
    first: float
    second: float
    difference: float  # the second less the first
    low: float | None  # of the difference; None for a score of a whole condition, which images do not have
    high: float | None
    better: str | None  # first or second where the interval excludes 0


def read_results(folder: Path) -> Results:
    """Read an output folder.

    Raises:
        TamingError: it holds no evaluation, or one of a version without protocols.
    """
    if not (folder / "scores.jsonl").is_file():
        raise TamingError(f"{folder} holds no evaluation. Name a folder that `taming eval` wrote.")
    if not (folder / "protocol.json").is_file():
        raise TamingError(f"{folder} is of an older version and does not say by which protocol it was measured. Run "
                          "the same `taming eval` again.")  # fmt: skip
    rows = [json.loads(line) for line in read_text(folder / "scores.jsonl").splitlines()]
    return Results(folder, read_json(folder / "protocol.json"), rows, read_json(folder / "metrics.json"))


def require_same_protocol(first: Results, second: Results) -> None:
    """Require results of one protocol.

    Raises:
        TamingError: they are of different ones; the message names every key that differs, with both values.
    """
    if first.protocol["fingerprint"] == second.protocol["fingerprint"]:
        return
    found = changes(first.protocol["measured"], second.protocol["measured"])
    named = "; ".join(f"{key} is {shortened(one)} and {shortened(other)}" for key, one, other in found)
    raise TamingError(f"{first.folder} and {second.folder} are of different protocols: {named}. Evaluate both with the "
                      "same rows, params and --protocol.")  # fmt: skip


def changes(first: Any, second: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys in which two JSON values differ, with both values; of a list the first place, counted from 0.

    >>> list(changes({"seed": 0, "subjects": ["a", "b", "c"]}, {"seed": 0, "subjects": ["a", "c"]}))
    [('subjects.1', 'b', 'c')]
    """
    if isinstance(first, dict) and isinstance(second, dict):
        one, other = cast("dict[str, Any]", first), cast("dict[str, Any]", second)
        for name in dict.fromkeys([*one, *other]):
            yield from changes(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
    elif isinstance(first, list) and isinstance(second, list):
        pairs = enumerate(zip_longest(cast("list[Any]", first), cast("list[Any]", second)))
        place = next(((i, one, other) for i, (one, other) in pairs if one != other), None)
        if place is not None:
            yield from changes(place[1], place[2], f"{key}.{place[0]}")
    elif first != second:
        yield key, first, second


def shortened(value: Any) -> str:
    """A value for a message.

    >>> shortened({"text": "a photo of a <object> on a very long beach"}), shortened(None)
    ('{"text": "a photo of a <object> on a ve…', 'none')
    """
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHORTENED else f"{text[: SHORTENED - 1]}…"


def differences(first: Results, second: Results) -> list[Difference]:
    """Every measure of every condition that both have."""
    conditions = [c for c in first.metrics if c in second.metrics]
    return [d for condition in conditions for m in MEASURES for d in _differences(condition, m, first, second)]


def _differences(condition: str, m: Measure, first: Results, second: Results) -> Iterator[Difference]:
    """The difference of one measure in one condition, if both have it."""
    both = pairs(condition, m.key, first.rows, second.rows)
    if m.key == NOT_COMPARED:
        return
    if both:
        yield _paired(condition, m, [one for one, _ in both], [other for _, other in both])
    elif all(m.key in results.metrics[condition] for results in (first, second)):
        one, other = first.metrics[condition][m.key], second.metrics[condition][m.key]
        yield Difference(condition, m.key, one, other, round(other - one, 4), None, None, None)


def pairs(
    condition: str, key: str, first: Sequence[ImageScores], second: Sequence[ImageScores]
) -> list[tuple[ImageScores, ImageScores]]:
    """The scores of the same image in both, where both have this one."""
    one, other = ({_image(r): r for r in rows if r["condition"] == condition and key in r} for rows in (first, second))
    return [(row, other[image]) for image, row in one.items() if image in other]


def _image(row: ImageScores) -> tuple[Any, ...]:
    """What an image is paired by: subject, prompt and number, or the number of a real photo."""
    return tuple(row.get(key) for key in ("identity", "kind", "asked", "seed", "photo"))


def _paired(condition: str, m: Measure, first: Sequence[ImageScores], second: Sequence[ImageScores]) -> Difference:
    e = m.estimate_difference([b[m.key] - a[m.key] for a, b in zip(first, second, strict=True)], *factors(first))
    one, other = (round(sum(r[m.key] for r in rows) / len(rows), 4) for rows in (first, second))
    difference, low, high = (round(value, 4) for value in (e.mean, e.low, e.high))
    sign = 0 if e.low <= 0 <= e.high else 1 if e.low > 0 else -1
    better = {0: None, 1: "second", -1: "first"}[sign if m.higher_is_better else -sign]
    return Difference(condition, m.key, one, other, difference, low, high, better)


def lines(found: Sequence[Difference], names: tuple[str, str] = ("A", "B")) -> list[list[str]]:
    """The cells of a table of differences: measure, both values, difference, its interval, and which is better."""
    titles = {m.key: m for m in MEASURES}
    return [_cells(d, titles[d.measure], {None: "", "first": names[0], "second": names[1]}) for d in found]


def _cells(d: Difference, m: Measure, names: Mapping[str | None, str]) -> list[str]:
    interval = "" if d.low is None or d.high is None else f"{_signed(m, d.low)} to {_signed(m, d.high)}"
    return [m.title, m.format(d.first), m.format(d.second), _signed(m, d.difference), interval, names[d.better]]


def _signed(m: Measure, value: float) -> str:
    """A difference as text, with its sign: percentage points, or three decimals."""
    return f"{100 * value:+.0f} %" if m.unit else f"{value:+.3f}"


def print_table(first: Results, second: Results, found: Sequence[Difference]) -> None:
    """The differences with the object's tokens, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for n, heading in enumerate(("", "A", "B", "B - A", "95 % interval", "better")):
        table.add_column(heading, justify="right" if 0 < n < 4 else "left", no_wrap=True)
    for cells in lines([d for d in found if d.condition == OURS]):
        table.add_row(*cells)
    console = Console(highlight=False, soft_wrap=True)
    for name, results in (("A", first), ("B", second)):
        encoder = results.protocol["encoder"]
        console.print(f"{name}: {results.folder}, encoder {encoder['name']} {encoder['fingerprint']}", markup=False)
    console.print(table)


def write(first: Results, second: Results, found: Sequence[Difference], out: AnyPath) -> None:
    """Write compare.json and compare.csv, with all conditions, into the folder `out`."""
    with replacing(out / "compare.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([Difference._fields, *found])
    compared = {name: dict(r.protocol["encoder"]) for name, r in (("first", first), ("second", second))}
    protocol = {key: first.protocol[key] for key in ("name", "version", "fingerprint")}
    differences = [d._asdict() for d in found]
    write_json(out / "compare.json", {"protocol": protocol, "encoders": compared, "differences": differences})
