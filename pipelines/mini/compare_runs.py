"""Compare two evaluations of one protocol: a table of differences and a sheet of images.

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
from taming_core.evaluation.comparison import Results, differences, lines, read_results, require_same_protocol
from taming_core.evaluation.conditions import OURS
from taming_core.evaluation.judges import composite_on_grey
from taming_core.evaluation.protocol import all_subjects
from taming_core.figures.image_grid import Cell, grid, save

SIDE = 128  # pixels of a picture on the sheet

Score = Mapping[str, Any]  # a row of scores.jsonl


def main(
    first: Annotated[Path, typer.Option("--first", help="Folder that `taming eval` wrote.")],
    second: Annotated[Path, typer.Option("--second", help="Another one, of the same protocol.")],
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
    results = read_results(first), read_results(second)
    require_same_protocol(*results)
    shared = [row for row in results[0].rows if row["condition"] == OURS]
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table(*results, titles), encoding="utf-8")
    save(sheet(folders, titles, shared, subjects_of(rows), objects, prompts), out / "sheet.png")
    print((out / "table.md").read_text(encoding="utf-8"), out / "sheet.png", sep="\n")


def subjects_of(rows: Path) -> dict[str, Image.Image]:
    """Identity -> its subject image."""
    return {identity: composite_on_grey(subject) for _, identity, subject in all_subjects(rows)}


def table(first: Results, second: Results, titles: Sequence[str]) -> str:
    """Every measure of both, their difference with its interval, and which is better; seconds per image."""
    headings = ["", *titles, "difference", "95 % interval", "better"]
    found = [d for d in differences(first, second) if d.condition == OURS]
    timings = [json.loads((r.folder / "timings.json").read_text(encoding="utf-8")) for r in (first, second)]
    seconds = [f"{t['seconds_per_image']:.2f}" if t.get("seconds_per_image") else "" for t in timings]
    cells = [*lines(found, (titles[0], titles[1])), ["Seconds per image", *seconds, "", "", ""]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, ["---"] * len(headings), *cells]) + "\n"


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
