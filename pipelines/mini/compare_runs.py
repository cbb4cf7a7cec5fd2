"""Compare two evaluations of the same objects, seeds and prompts: a table of metrics and a sheet of images.

Example:  python -m pipelines.mini.compare_runs --first out/mini/first --second out/mini/second
          --in out/mini/unseen-rows
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation.conditions import OURS
from taming_core.evaluation.judges import composite_on_grey
from taming_core.evaluation.measures import MEASURES, Measure
from taming_core.evaluation.protocol import all_subjects
from taming_core.figures.image_grid import Cell, grid, save

SIDE = 128  # pixels of a picture on the sheet

Score = Mapping[str, Any]  # a row of scores.jsonl


def main(
    first: Annotated[Path, typer.Option("--first", help="Folder that `taming eval` wrote.")],
    second: Annotated[Path, typer.Option("--second", help="Another one, with the same rows and params.")],
    rows: Annotated[Path, typer.Option("--in", help="Rows of both evaluations.")],
    names: Annotated[
        str, typer.Option("--names", help="Names of the two, with a comma between them.")
    ] = "first,second",
    objects: Annotated[int, typer.Option("--objects", min=1, help="Objects on the sheet.")] = 16,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Images of each object on the sheet.")] = 3,
    out: Annotated[Path, typer.Option("--out", help="Folder for table.md and sheet.png.")] = Path(
        "out/mini/comparison"
    ),
) -> None:
    """Write the table and the sheet."""
    folders, titles = (first, second), names.split(",")
    if len(titles) != 2:
        raise TamingError(f"--names is '{names}'. Give two names with a comma between them.")
    shared = same_images(*(scores_of(folder) for folder in folders))
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table(folders, titles), encoding="utf-8")
    save(sheet(folders, titles, shared, subjects_of(rows), objects, prompts), out / "sheet.png")
    print((out / "table.md").read_text(encoding="utf-8"), out / "sheet.png", sep="\n")


def scores_of(folder: Path) -> list[Score]:
    """The scores of the images that were drawn with the object's own tokens."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["condition"] == OURS and "image" in row]


def same_images(one: Sequence[Score], other: Sequence[Score]) -> list[Score]:
    """The scores of the first; raises TamingError unless the second has the same objects, prompts and seeds."""
    keys = [[(r["identity"], r["prompt"], r["seed"], r["image"]) for r in rows] for rows in (one, other)]
    if keys[0] != keys[1]:
        raise TamingError(
            "The two evaluations have different objects, prompts or seeds. Run both with the same rows and params."
        )
    return list(one)


def subjects_of(rows: Path) -> dict[str, Image.Image]:
    """Identity -> its subject image."""
    return {identity: composite_on_grey(subject) for _, identity, subject in all_subjects(rows)}


def table(folders: Sequence[Path], titles: Sequence[str]) -> str:
    """Every metric that both have, with its interval, and seconds per image."""
    metrics, intervals, timings = (
        [json.loads((folder / name).read_text(encoding="utf-8")) for folder in folders]
        for name in ("metrics.json", "intervals.json", "timings.json")
    )
    lines = [f"| | {' | '.join(titles)} |", "|---|---|---|"]
    for m in MEASURES:
        if all(m.key in found[OURS] for found in metrics):
            cells = [_formatted(m, found[OURS], ends[OURS]) for found, ends in zip(metrics, intervals, strict=True)]
            lines.append(f"| {m.title} | {' | '.join(cells)} |")
    seconds = [f"{t['seconds_per_image']:.2f}" if t.get("seconds_per_image") else "" for t in timings]
    return "\n".join([*lines, f"| Seconds per image | {' | '.join(seconds)} |"]) + "\n"


def _formatted(m: Measure, means: Mapping[str, float], ends: Mapping[str, Mapping[str, float]]) -> str:
    """A mean with its interval."""
    return f"{m.format(means[m.key])} ({m.format(ends[m.key]['low'])} to {m.format(ends[m.key]['high'])})"


def sheet(
    folders: Sequence[Path],
    titles: Sequence[str],
    rows: Sequence[Score],
    subject_images: Mapping[str, Image.Image],
    objects: int,
    prompts: int,
) -> Image.Image:
    """A row per object: its subject image, then the images of both evaluations for each prompt."""
    identities = list(dict.fromkeys(r["identity"] for r in rows))[:objects]
    by_identity = {i: [r for r in rows if r["identity"] == i][:prompts] for i in identities}
    columns = [f"{name}: {r['asked']}" for r in by_identity[identities[0]] for name in titles]
    cells = [
        [Cell(subject_images[i], i), *(Cell(drawn(folder, r)) for r in by_identity[i] for folder in folders)]
        for i in identities
    ]
    return grid(" and ".join(titles), ["subject", *columns], cells, SIDE)


def drawn(folder: Path, row: Score) -> Image.Image:
    """The image of a score."""
    with Image.open(folder / "images" / row["image"]) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    typer.run(main)
