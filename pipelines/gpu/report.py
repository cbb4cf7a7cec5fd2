"""The results of a run, as JSON and as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taming_core.files import write_json, write_text

Results = Mapping[str, Any]
COLUMNS = ("case", "loop", "images_per_second", "step_ms", "memory_gib", "step_tflop", "share_of_peak")


def write(results: Results, out: Path) -> None:
    """Write `results.json` and `results.md` into a folder."""
    write_json(out / "results.json", results)
    write_text(out / "results.md", markdown(results))


def markdown(results: Results) -> str:
    """The tables of checks and speeds, and what was left out."""
    checks = [(c["name"], c["result"], f"{c['seconds']:.0f}", words(c["figures"])) for c in results["checks"]]
    speeds = [tuple(number(s[column]) for column in COLUMNS) for s in results["speeds"]]
    parts = [
        f"{results['device']}; torch {results['versions']['torch']}; {results['seconds']:.0f} seconds",
        table(("check", "result", "seconds", "figures"), checks),
        table(tuple(column.replace("_", " ") for column in COLUMNS), speeds),
        *(f"{name}: {reason}" for name, reason in results["left_out"].items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty without lines.

    >>> print(table(("a", "b"), [("1", "2")]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    rows = [head, ["---"] * len(head), *lines] if lines else []
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def words(figures: Mapping[str, float] | str) -> str:
    """Figures in one line, or the reason why there are none.

    >>> words({"bf16": 0.0123456}), words("out of memory")
    ('bf16 0.0123', 'out of memory')
    """
    return figures if isinstance(figures, str) else ", ".join(f"{name} {number(v)}" for name, v in figures.items())


def number(value: object) -> str:
    """A value of a table; empty for None."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
