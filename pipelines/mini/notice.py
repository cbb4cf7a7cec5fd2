"""Write the artwork sections of NOTICE from the shipped tables.

Example:  python -m pipelines.mini.notice
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from pipelines.mini.sources import Sources, load_sources

ROOT = Path(__file__).parents[2]
BEGIN = "---- begin: written by pipelines/mini/notice.py ----"
END = "---- end: written by pipelines/mini/notice.py ----"
LICENCES = {  # allowed for the artwork
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "GPL-2.0-or-later": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
    "LGPL-3.0-only": "https://www.gnu.org/licenses/lgpl-3.0.html",
    "MIT": "https://opensource.org/license/mit",
}
ARTWORK = """\
The tables in taming_core/mini/world hold pictures made from emoji artwork; the models of `mini` were trained
on such pictures, and the photos in data/ show them. The artwork was scaled, recoloured, warped and put into scenes. A
picture that shows a cut-out stays under the licence of its artwork, which the tables name row by row; the folder names
under data/raw end in the name of the set."""
SCENES = """\
The painted scenes are drawn by pipelines/mini/scenery.py and come under the licence of this project. The others are
square parts, made smaller, of wallpapers that Debian packages carry. A picture that shows one of these scenes stays
under the licence of the wallpaper."""

Row = Mapping[str, Any]


def main(
    world: Annotated[Path, typer.Option(help="Folder of the two tables.")] = ROOT / "taming_core/mini/world",
    notice: Annotated[Path, typer.Option(help="The file to update.")] = ROOT / "NOTICE",
) -> None:
    """Replace the text between the two marker lines."""
    notice.write_text(updated(notice.read_text("utf-8"), written(world, load_sources())), "utf-8")


def updated(notice: str, parts: str) -> str:
    """The notice with new text between its marker lines."""
    before, rest = notice.split(BEGIN)
    return f"{before}{BEGIN}\n\n{parts}\n\n{END}{rest.split(END)[1]}"


def written(world: Path, sources: Sources) -> str:
    """The sections on artwork, scenes and licences."""
    cutouts = pq.read_table(world / "cutouts.parquet", columns=["licence", "source"]).to_pylist()
    scenes = pq.read_table(world / "scenes.parquet").drop(["image"]).to_pylist()
    used = sorted({row["licence"] for row in cutouts + scenes})
    links = [f"  {licence:16}  {LICENCES[licence]}" for licence in used]
    lines = [
        *heading("Artwork"), ARTWORK, "", *artwork_lines(cutouts, sources), "",
        *heading("Scenes"), SCENES, "", *scene_lines(scenes, sources), "",
        *heading("Licences of artwork and scenes"), "Their texts lie in LICENSES/.", "", *links,
    ]  # fmt: skip
    return "\n".join(lines)


def heading(title: str) -> list[str]:
    """An underlined title."""
    return [title, "-" * len(title)]


def artwork_lines(rows: Sequence[Row], sources: Sources) -> Iterator[str]:
    """Two lines per emoji set: author, number of cut-outs and licence; then package and homepage."""
    counts = Counter((row["source"], row["licence"]) for row in rows)
    for design in sources.designs:
        if count := counts[design.source, design.licence]:
            yield f"  {design.title}, {design.author}: {count} cut-outs, {design.licence}"
            yield f"      npm {design.source}, {design.home}"


def scene_lines(rows: Sequence[Row], sources: Sources) -> Iterator[str]:
    """The number of painted pictures, then each wallpaper under its package."""
    counts = Counter((row["kind"], row["source"], row["scene"], row["author"], row["licence"]) for row in rows)
    painted = [(key, count) for key, count in counts.items() if key[0] == "painted"]
    yield f"  {len(painted)} painted scenes: {sum(count for _, count in painted)} pictures, Apache-2.0"
    for package in sources.wallpapers:
        yield ""
        text = f"Debian {package.source}, {package.home}. The licences stand in {package.evidence}."
        yield fill(
            text, 118, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        )
        for (kind, source, scene, author, licence), count in counts.items():
            if kind == "photographed" and source.startswith(f"{package.source} "):
                file = source.removeprefix(f"{package.source} ")
                yield f'      {file}, {author}: {count} pictures "{scene}", {licence}'


if __name__ == "__main__":
    typer.run(main)
