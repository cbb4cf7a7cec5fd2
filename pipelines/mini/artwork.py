"""Make the artwork of the mini world from openly licensed sources: cutouts.parquet and scenes.parquet.

Example:  python -m pipelines.mini.artwork

sources.toml lists the sources and their licences; `notice.py` writes them into NOTICE.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt

from pipelines.mini.brushes import Picture
from pipelines.mini.cutouts import Read, canonical, dominant_colour, encoded, is_usable, reader
from pipelines.mini.options import ParamsFile
from pipelines.mini.scenery import PAINTERS, paint, scene_rng
from pipelines.mini.sources import Design, Sources, debian_package, load_sources, npm_package
from pipelines.mini.stage_params import HERE, OUT, PARAMS, Section, load_section, require_outside_package
from pipelines.mini.wallpapers import open_wallpaper, window
from taming_core.progress import track
from taming_core.tables import schema
from taming_core.tables.schema import IMAGE, Row, column

CONCEPTS = HERE / "concepts.tsv"
QUALITY = 86  # of the scenes' WebP, 1 to 100
PLAIN = "background"  # scenes of one colour have half as many images

ORIGIN = [
    column("licence", pa.string(), "SPDX identifier"),
    column("source", pa.string(), "package and version it was made from, or the program that painted it"),
]
CUTOUTS = pa.schema([
    column("concept", pa.int32(), "number of the concept; cut-outs of one concept share it"),
    column("name", pa.string(), "what the artwork shows"),
    column("group", pa.string(), "group of the concept in the Unicode list"),
    column("sub", pa.string(), "sub-group of the concept"),
    column("design", pa.string(), "who drew it"),
    column("split", pa.string(), "train, unseen-concepts or unseen-designs"),
    *ORIGIN,
    column("colour", pa.list_(pa.float32(), 3), "the telling colour, RGB in [0, 1]"),
    column("image", IMAGE, "the cut-out, RGBA, 128 pixels wide and high", nullable=True),
])  # fmt: skip
SCENES = pa.schema([
    column("scene", pa.string(), "as captions say it: on the beach"),
    column("kind", pa.string(), "painted or photographed"),
    column("author", pa.string(), "who made the picture"),
    *ORIGIN,
    column("image", IMAGE, "RGB, 176 pixels wide and high", nullable=True),
])  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """A line of concepts.tsv."""

    concept: int
    name: str
    codepoints: str  # as OpenMoji writes them: "1F480"
    group: str
    sub: str
    split: str  # train or unseen-concepts
    unseen_design: str  # the design that is held out of training; empty if none is

    def split_of(self, design: str) -> str:
        """The split of the cut-out in a design."""
        return "unseen-designs" if design == self.unseen_design else self.split


class ArtworkParams(Section):
    """Size of the artwork."""

    seed: NonNegativeInt  # same seed, same scenes
    concepts: PositiveInt | None  # number of training concepts, with a few of each hold-out; null for all
    pictures: PositiveInt  # per scene; half as many for plain backgrounds
    photographs: bool  # include the scenes cut from wallpapers


def main(
    params: ParamsFile = PARAMS,
    cache: Annotated[Path, typer.Option(help="Folder for downloaded packages.")] = OUT / "sources",
    out: Annotated[Path, typer.Option(help="Folder for the two tables.")] = OUT / "world",
) -> None:
    """Draw every cut-out and every scene, and write them with their licences."""
    require_outside_package(out)
    p, sources = load_section(ArtworkParams, "artwork", params), load_sources()
    chosen = subset(load_concepts(CONCEPTS), p.concepts)
    cutouts = list(cutout_rows(chosen, sources.designs, cache))
    schema.write([schema.table(cutouts, CUTOUTS)], described(CUTOUTS), out / "cutouts.parquet")
    scenes = list(painted_rows(p.pictures, p.seed))
    if p.photographs:
        scenes += photographed_rows(sources, p.pictures, p.seed, cache)
    schema.write([schema.table(scenes, SCENES)], described(SCENES), out / "scenes.parquet")
    for rows, keys in ((cutouts, ("design", "split", "licence")), (scenes, ("kind", "licence"))):
        for key in keys:
            print(key, dict(Counter(row[key] for row in rows)))


def load_concepts(path: Path) -> list[Concept]:
    """All concepts, in the order of their numbers."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        return [Concept(**{**row, "concept": int(row["concept"])}) for row in rows]  # pyright: ignore[reportArgumentType]


def subset(concepts: Sequence[Concept], count: int | None) -> list[Concept]:
    """The first `count` training concepts and a tenth as many of each hold-out, at least one; all for None."""
    if count is None:
        return list(concepts)
    few = max(1, count // 10)
    unseen = [c for c in concepts if c.split != "train"]
    partly = [c for c in concepts if c.unseen_design]
    train = [c for c in concepts if c not in unseen and c not in partly]
    return sorted(train[:count] + unseen[:few] + partly[:few], key=lambda c: c.concept)


def cutout_rows(concepts: Sequence[Concept], designs: Sequence[Design], cache: Path) -> Iterator[Row]:
    """The cut-outs of every concept that at least two designs have."""
    readers = [(design, reader(design, npm_package(design, cache))) for design in designs]
    for concept in track(concepts, "cut-outs"):
        rows = [row for design, read in readers if (row := cutout_row(concept, design, read))]
        if len(rows) > 1:
            yield from rows


def cutout_row(concept: Concept, design: Design, read: Read) -> dict[str, Any] | None:
    """The concept in one design; None if the design lacks it or the artwork is not usable."""
    image = read(concept.codepoints)
    art = None if image is None else canonical(image)
    if art is None or not is_usable(art):
        return None
    return {
        "concept": concept.concept,
        "name": concept.name,
        "group": concept.group,
        "sub": concept.sub,
        "design": design.design,
        "split": concept.split_of(design.design),
        "licence": design.licence,
        "source": design.source,
        "colour": dominant_colour(art),
        "image": {"bytes": encoded(art), "path": f"{concept.codepoints}-{design.design}.webp"},
    }


def painted_rows(pictures: int, seed: int) -> Iterator[Row]:
    """The scenes that scenery.py paints."""
    origin = {
        "kind": "painted",
        "author": "the taming authors",
        "licence": "Apache-2.0",
        "source": "pipelines/mini/scenery.py",
    }
    for scene in track(list(PAINTERS), "painted scenes"):
        for index in range(pictures // 2 if scene.endswith(PLAIN) else pictures):
            yield {"scene": scene, **origin, "image": scene_image(paint(scene, seed, index), scene, index)}


def photographed_rows(sources: Sources, pictures: int, seed: int, cache: Path) -> Iterator[Row]:
    """The scenes cut from wallpapers; the wallpapers of a scene alternate."""
    packages = {w.package: w for w in sources.wallpapers}
    folders = {name: debian_package(package, cache) for name, package in packages.items()}
    for scene in track(list(dict.fromkeys(p.scene for p in sources.photographs)), "photographed scenes"):
        photos = [p for p in sources.photographs if p.scene == scene]
        opened = [open_wallpaper(folders[p.package] / p.file) for p in photos]
        for index in range(pictures):
            p, wallpaper = photos[index % len(photos)], opened[index % len(photos)]
            yield {
                "scene": scene,
                "kind": "photographed",
                "author": p.author,
                "licence": p.licence,
                "source": f"{packages[p.package].source} {p.file}",
                "image": scene_image(window(wallpaper, p.closest, scene_rng(scene, seed, index)), scene, index),
            }


def scene_image(picture: Picture, scene: str, index: int) -> dict[str, Any]:
    """An image as WebP, in the format of the table."""
    buffer = io.BytesIO()
    Image.fromarray((picture * 255 + 0.5).astype(np.uint8)).save(buffer, "WEBP", quality=QUALITY, method=6)
    return {"bytes": buffer.getvalue(), "path": f"{scene.replace(' ', '-')}-{index:02}.webp"}


def described(table: pa.Schema) -> pa.Schema:
    """The schema with features for `datasets`, which reads an image column as images only if it is nullable."""
    features = {field.name: _feature(field.type) for field in table}
    return table.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if isinstance(kind, pa.FixedSizeListType):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    return {"dtype": "float32" if kind == pa.float32() else str(kind), "_type": "Value"}


if __name__ == "__main__":
    typer.run(main)
