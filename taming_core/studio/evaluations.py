"""Two evaluations of a project side by side, and the pictures behind a score; the tables are those of `--compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from taming_core.evaluation import comparison
from taming_core.evaluation.comparison import Difference, Results
from taming_core.evaluation.conditions import in_order, name_of
from taming_core.evaluation.measures import MEASURES, Measure

MAX_PICTURES = 24
HEADINGS = ("Score", "A", "B", "B − A", "95 % interval", "Better")
MEASURE = {m.key: m for m in MEASURES}


class Picture(NamedTuple):
    """An image, and its score in words."""

    path: Path
    caption: str


class Row(NamedTuple):
    """A row of the table: a measure, and its cells."""

    measure: str
    cells: list[str]


def folders(project: Path) -> list[str]:
    """The evaluations of a project, by folder; data/evaluation, which `taming eval` writes by itself, is the first."""
    found = [f.parent for pattern in ("data/*", "out/*", "out/*/*") for f in project.glob(f"{pattern}/scores.jsonl")]
    names = sorted(folder.relative_to(project).as_posix() for folder in found)
    return sorted(names, key=lambda name: name != "data/evaluation")


def conditions(results: Results) -> list[tuple[str, str]]:
    """The conditions of an evaluation: names and keys, in the order of the report."""
    return [(name_of(c), c) for c in in_order(results.metrics)]


def table(first: Results, second: Results | None, condition: str) -> list[Row]:
    """A row for each score of a condition: of one evaluation, or of both with their difference.

    Raises:
        TamingError: the evaluations are of different protocols.
    """
    if second is None:
        taken = first.metrics.get(condition, {})
        return [Row(m.key, [m.title, m.format(taken[m.key]), "", "", "", ""]) for m in MEASURES if m.key in taken]
    comparison.require_same_protocol(first, second)
    found: list[Difference] = [d for d in comparison.differences(first, second) if d.condition == condition]
    return [Row(d.measure, cells) for d, cells in zip(found, comparison.lines(found), strict=True)]


def pictures(first: Results, second: Results | None, condition: str, key: str) -> list[Picture]:
    """The images with a score, lowest first; of two evaluations in pairs, those that differ most first."""
    measure = MEASURE[key]
    if second is None:
        rows = sorted((r for r in first.rows if r["condition"] == condition and key in r), key=lambda r: r[key])
        return [p for r in rows[:MAX_PICTURES] for p in _picture(first.folder, r, measure, "")]
    pairs = comparison.pairs(condition, key, first.rows, second.rows)
    pairs.sort(key=lambda pair: -abs(pair[1][key] - pair[0][key]))
    return [p for a, b in pairs[: MAX_PICTURES // 2]
            for p in (*_picture(first.folder, a, measure, "A"), *_picture(second.folder, b, measure, "B"))]  # fmt: skip


def _picture(folder: Path, row: comparison.ImageScores, measure: Measure, name: str) -> Sequence[Picture]:
    """The image of a row; none of a real photo, or of a file that is not in the folder."""
    path = (folder / "images" / str(row.get("image", ""))).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        return ()
    words = (name, measure.format(row[measure.key]), str(row["identity"]), str(row.get("asked", "")))
    return (Picture(path, ", ".join(filter(None, words))),)
