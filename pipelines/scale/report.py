"""The results of the measurement as JSON and as Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from pipelines.scale.steps import STAGES, Measured
from taming_core.files import write_json, write_text
from taming_core.tables.drop_counts import summary

HEAD = ("photos", "stage", "run", "photos/s", "photos/s between shards", "peak memory, MiB", "of the command, MiB",
        "processes", "lost to a kill, s", "output, MiB")  # fmt: skip


def write(found: Sequence[Measured], out: Path) -> None:
    """Write results.json and results.md."""
    write_json(out / "results.json", [asdict(m) for m in found])
    write_text(out / "results.md", markdown(found))


def markdown(found: Sequence[Measured]) -> str:
    """All tables."""
    return "\n".join([*table(HEAD, map(line, found)), "", *growth(found), "", *same(found), "", *reasons(found), ""])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def line(m: Measured) -> list[str]:
    """The row of a measurement."""
    run = "killed" if m.killed else "whole"
    steady = "" if m.steady_per_second is None else f"{m.steady_per_second:.1f}"
    lost = "" if m.lost_seconds is None else f"{m.lost_seconds:.1f}"
    return [f"{m.photos:,}", m.stage, run, f"{m.photos_per_second:.1f}", steady, f"{m.peak_mib:.0f}",
            f"{m.peak_main_mib:.0f}", str(m.processes), lost, f"{m.output_mib:.1f}"]  # fmt: skip


def growth(found: Sequence[Measured]) -> list[str]:
    """How the peak memory of each stage grows from the fewest photos to the most."""
    lines: list[str] = []
    for stage in STAGES:
        peaks = peak_by_count([m for m in found if m.stage == stage])
        if len(peaks) > 1:
            least, most = min(peaks), max(peaks)
            change = peaks[most] / peaks[least] - 1
            lines.append(f"{stage}: the peak memory of {most:,} photos is that of {least:,} {change:+.1%}.")
    return lines


def peak_by_count(found: Iterable[Measured]) -> dict[int, float]:
    """Number of photos -> the highest peak of its runs."""
    peaks: dict[int, float] = {}
    for m in found:
        peaks[m.photos] = max(m.peak_mib, peaks.get(m.photos, 0.0))
    return peaks


def same(found: Sequence[Measured]) -> list[str]:
    """Whether killed runs made what undisturbed ones made."""
    lines: list[str] = []
    for (photos, stage), runs in groupby(sorted(found, key=key), key):
        contents = [m.content for m in runs]
        if len(contents) == 2:
            equal = "the same bytes" if len(set(contents)) == 1 else "DIFFERENT bytes"
            lines.append(f"{stage} of {photos:,} photos, whole and killed: {equal}.")
    return lines


def key(m: Measured) -> tuple[int, str]:
    """Photos and stage."""
    return m.photos, m.stage


def reasons(found: Sequence[Measured]) -> list[str]:
    """The rows of each output by drop reason."""
    return [f"{m.stage} of {m.photos:,} photos: {summary(m.reasons)}." for m in found]
