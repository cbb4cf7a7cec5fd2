"""Render the general-domain set of `mini`: plain text-image pairs that keep the text-to-image model whole.

python pipelines/mini/general.py
python pipelines/mini/general.py --photos 4 --out out/general    # smoke run
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from taming_core.world import Chances, World, load_world, render

HERE = Path(__file__).parent
PHOTOGRAPHED = "in a flower garden"  # the first scene that is cut from a photo of somebody else; all before are painted
CHANCES = Chances(recolor=0, style=0.2, two_objects=0.1, unnamed_scene=0)


def main(
    photos: Annotated[int, typer.Option(help="How many.")] = 48,
    size: Annotated[int, typer.Option(help="Side of a photo in pixels.")] = 192,
    quality: Annotated[int, typer.Option(help="Of the JPEG files, 1 to 100.")] = 90,
    seed: Annotated[int, typer.Option(help="Same seed, same photos.")] = 21,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = HERE / "world",
    out: Annotated[Path, typer.Option(help="Folder for the photos and metadata.jsonl.")] = HERE.parents[1]
    / "data"
    / "general",
) -> None:
    """Render photos of concepts that training may see, and write them in ImageFolder layout."""
    out.mkdir(parents=True, exist_ok=True)
    batch = render(painted(load_world(world)), seed, 0, photos, size, "train", CHANCES)
    lines: list[str] = []
    for number, (image, caption, subjects) in enumerate(zip(batch.image, batch.caption, batch.objects, strict=True)):
        name = f"{number:03}.jpg"
        Image.fromarray(image.numpy()).save(out / name, quality=quality)
        artwork = ", ".join(f"{s.name} ({s.design})" for s in subjects)
        lines.append(json.dumps({"file_name": name, "caption": caption.replace(" ,", ","), "artwork": artwork}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def painted(world: World) -> World:
    """The world with the scenes that were drawn by a program only."""
    return replace(world, scenes=world.scenes[: world.scenes.index(PHOTOGRAPHED)])


if __name__ == "__main__":
    typer.run(main)
