"""Let the frozen tower of `mini` look at photos once; captioner and matcher then read what it saw many times.

Example:  python pipelines/mini/looks.py
          python pipelines/mini/looks.py --photos 64 --out out/looks.safetensors    # smoke run
"""

import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from blip import SIZE, start_from_clip, tower_config
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import BlipVisionModel

from taming_core.seeds import seed_for
from taming_core.world import Chances, Photos, load_world, render

# One object each, whose name its colours fit, and a scene that is never left unsaid.
CHANCES = Chances(recolor=0.0, style=0.35, two_objects=0.0, unnamed_scene=0.0)


@dataclass(frozen=True)
class Told:
    """What is true of a photo."""

    style: str  # "a photo of"
    name: str  # "squirrel"
    noun: str  # "animal"
    scene: str  # "on the beach"


@dataclass(frozen=True)
class Looks:
    """Photos as the tower sees them."""

    seen: Tensor  # bfloat16 (photos, 1 + patches, width): the class token, then a random share of the patches
    told: tuple[Told, ...]


def clip_tower(clip: Path) -> BlipVisionModel:
    """The tower that captioner and matcher look through; it never learns."""
    tower = BlipVisionModel(tower_config())
    start_from_clip(tower, clip / "model.safetensors")
    return tower.eval().requires_grad_(False)


def pixels(photos: Photos) -> Tensor:
    """float32 (n, 3, SIZE, SIZE) in [-1, 1], what the processor makes of the photos."""
    return photos.image.permute(0, 3, 1, 2).float() / 127.5 - 1


def truth(photos: Photos) -> tuple[Told, ...]:
    """Of photos of a single object."""
    rows = zip(photos.style, photos.objects, photos.scene, strict=True)
    return tuple(Told(style, what.name, what.noun, scene) for style, (what,), scene in rows)


@torch.no_grad()
def look(tower: BlipVisionModel, photos: Photos, patches: int, seed: int) -> Tensor:
    """What the tower sees of photos, with a random `patches` of the patches, the same for all of them."""
    with torch.autocast("cpu", torch.bfloat16):
        seen = tower(pixel_values=pixels(photos)).last_hidden_state
    order = torch.randperm(seen.shape[1] - 1, generator=torch.Generator().manual_seed(seed))
    return seen[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + order[:patches]])].bfloat16()


def read(file: Path) -> Looks:
    """The looks that `main` wrote."""
    with safe_open(file, "pt") as looks:
        told = json.loads(looks.metadata()["told"])
        return Looks(looks.get_tensor("seen"), tuple(Told(*parts) for parts in told))


def batches(count: int, batch_size: int, turn: int, seed: int) -> Iterator[list[int]]:
    """All photos once, in the order of this turn; a last batch that would be smaller is left out."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_for(seed, "order", turn))).tolist()
    for start in range(0, count - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def main(
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = Path("pipelines/mini/world"),
    clip: Annotated[Path, typer.Option(help="Folder of the CLIP whose tower looks.")] = Path(
        "taming_core/pretrained/mini/clip"
    ),
    out: Annotated[Path, typer.Option(help="File of the looks.")] = Path("out/mini/looks.safetensors"),
    photos: Annotated[int, typer.Option(help="How many; a multiple of 64.")] = 8192,
    patches: Annotated[int, typer.Option(help="Patches that are kept of each.")] = 48,
    seed: Annotated[int, typer.Option(help="Of photos and patches.")] = 0,
) -> None:
    """Render photos, look at them, and keep what was seen."""
    artwork, tower = load_world(world), clip_tower(clip)
    seen, told = [], []
    for batch in range(photos // 64):
        shown = render(artwork, seed, batch, 64, SIZE, chances=CHANCES)
        seen.append(look(tower, shown, patches, seed_for(seed, "looks/patches", batch)))
        told += truth(shown)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"seen": torch.cat(seen)}, out, {"told": json.dumps([astuple(t) for t in told])})


if __name__ == "__main__":
    typer.run(main)
