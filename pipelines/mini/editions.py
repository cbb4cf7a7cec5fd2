"""Two evaluations of the same things, seeds and prompts side by side: one table, and one sheet to look at.

Example:  python pipelines/mini/editions.py --first out/mini/first --second out/mini/second --in out/mini/held-out/rows
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation.judges import composite_on_grey
from taming_core.evaluation.measures import MEASURES, Measure
from taming_core.evaluation.protocol import OURS, subjects
from taming_core.figures.image_grid import Cell, grid, save

SIDE = 128  # pixels of a picture on the sheet

Verdict = Mapping[str, Any]


def main(
    first: Annotated[Path, typer.Option("--first", help="A folder that `taming eval` wrote.")],
    second: Annotated[Path, typer.Option("--second", help="Another one, of the same rows and params.")],
    rows: Annotated[Path, typer.Option("--in", help="The rows that both were evaluated on.")],
    names: Annotated[str, typer.Option("--names", help="What the two are called.")] = "first,second",
    things: Annotated[int, typer.Option("--things", min=1, help="How many the sheet shows.")] = 16,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="How many of each thing's images it shows.")] = 3,
    out: Annotated[Path, typer.Option("--out", help="Folder for table.md and sheet.png.")] = Path("out/mini/editions"),
) -> None:
    """Write the table and the sheet."""
    folders, titles = (first, second), names.split(",")
    if len(titles) != 2:
        raise TamingError(f"--names is '{names}'. Give two names with a comma between them.")
    shared = same_images(*(rows_of(folder) for folder in folders))
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table(folders, titles), encoding="utf-8")
    save(sheet(folders, titles, shared, subjects_of(rows), things, prompts), out / "sheet.png")
    print((out / "table.md").read_text(), out / "sheet.png", sep="\n")


def rows_of(folder: Path) -> list[Verdict]:
    """The verdicts on the images that were drawn with the things' own tokens."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["condition"] == OURS and "image" in row]


def same_images(one: Sequence[Verdict], other: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of the first, if the second is of the same things, prompts and seeds; raises TamingError."""
    about = [[(r["identity"], r["prompt"], r["seed"], r["image"]) for r in rows] for rows in (one, other)]
    if about[0] != about[1]:
        raise TamingError(
            "The two evaluations drew other things, prompts or seeds. Run both with the same rows and params."
        )
    return list(one)


def subjects_of(rows: Path) -> dict[str, Image.Image]:
    """Identity -> what the encoder saw of it."""
    return {identity: composite_on_grey(subject) for _, identity, subject in subjects(rows)}


def table(folders: Sequence[Path], titles: Sequence[str]) -> str:
    """Every measure that both have, with its interval; then seconds per image."""
    metrics, intervals, timings = (
        [json.loads((folder / name).read_text()) for folder in folders]
        for name in ("metrics.json", "intervals.json", "timings.json")
    )
    lines = [f"| | {' | '.join(titles)} |", "|---|---|---|"]
    for m in MEASURES:
        if all(m.key in found[OURS] for found in metrics):
            cells = [_said(m, found[OURS], ends[OURS]) for found, ends in zip(metrics, intervals, strict=True)]
            lines.append(f"| {m.title} | {' | '.join(cells)} |")
    seconds = [f"{t['seconds_per_image']:.2f}" if t.get("seconds_per_image") else "" for t in timings]
    return "\n".join([*lines, f"| Seconds per image | {' | '.join(seconds)} |"]) + "\n"


def _said(m: Measure, means: Mapping[str, float], ends: Mapping[str, Mapping[str, float]]) -> str:
    """A mean with its interval."""
    return f"{m.said(means[m.key])} ({m.said(ends[m.key]['low'])} to {m.said(ends[m.key]['high'])})"


def sheet(
    folders: Sequence[Path],
    titles: Sequence[str],
    rows: Sequence[Verdict],
    seen: Mapping[str, Image.Image],
    things: int,
    prompts: int,
) -> Image.Image:
    """A row for each thing: what the encoder saw, then each prompt as either drew it."""
    identities = list(dict.fromkeys(r["identity"] for r in rows))[:things]
    of_thing = {i: [r for r in rows if r["identity"] == i][:prompts] for i in identities}
    columns = [f"{name}: {r['asked']}" for r in of_thing[identities[0]] for name in titles]
    cells = [
        [Cell(seen[i], i), *(Cell(drawn(folder, r)) for r in of_thing[i] for folder in folders)] for i in identities
    ]
    return grid(" and ".join(titles), ["seen", *columns], cells, SIDE)


def drawn(folder: Path, row: Verdict) -> Image.Image:
    """The image that a verdict is about."""
    with Image.open(folder / "images" / row["image"]) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    typer.run(main)
