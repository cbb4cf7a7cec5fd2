"""Let the trained tower of `mini` look at photos once; captioner and matcher then read what it saw many times.

It also looks at every thing alone, so that in lessons another thing can stand where one stood, see `exchanged`.

Example:  python pipelines/mini/looks.py
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import schooling
import torch
import torch.nn.functional as F
import typer
from blip import SEEN, SIZE, tower_config
from devices import ready
from jaxtyping import Float, Int
from numpy.random import Generator
from pydantic import PositiveInt
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from schooling import Section
from torch import Tensor
from transformers import BlipVisionModel

from taming_core.seeds import seed_for
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan, generator, plan_of
from taming_core.world.render import composite_on_grey, draw, references
from taming_core.world.wording import facts_of

OUT = Path("out/mini")  # what only later stages need
AT_ONCE = 64  # photos in memory; changes no figure but by rounding


class LooksParams(Section):
    """How many photos captioner and matcher learn from, and how much is kept of each."""

    seed: int
    photos: PositiveInt  # a multiple of AT_ONCE
    patches: PositiveInt  # kept of each photo, drawn at random
    chances: Chances  # one object, in its own colours; attributes 1, so that all that can be said is known


@dataclass(frozen=True)
class Told:
    """What is true of a photo of one thing; a size or place that is not notable is empty."""

    style: str  # "a photo of"
    name: str  # "squirrel"
    noun: str  # "animal"
    scene: str  # "on the beach"
    size: str  # "small"
    place: str  # ", on the left"
    cutout: int  # index in `World.cutouts`


@dataclass(frozen=True)
class Looks:
    """Photos as the tower sees them, in half precision."""

    seen: Float[Tensor, "photos tokens width"]  # the class token, then some of the patches
    told: tuple[Told, ...]
    alone: Float[Tensor, "learnt width"]  # the class token of each thing that is taught, in the order of the world


def truth(world: World, p: Plan) -> Told:
    """Of the plan of one thing that was drawn with attributes 1."""
    (thing,) = p.objects
    place = facts_of(p.caption, world.scenes).place
    return Told(p.style, thing.words, world.cutouts[thing.cutout].noun, p.scene, thing.size, place, thing.cutout)


def pixels(images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 3 seen seen"]:
    """Images with values in [0, 1] as the processor hands them to the tower, in [-1, 1]."""
    fewer = F.interpolate(images, size=(SEEN, SEEN), mode="bicubic", antialias=True, align_corners=False)
    return fewer.clamp(0, 1) * 2 - 1


def load_tower(folder: Path, device: str) -> BlipVisionModel:
    """The trained tower, which never learns again."""
    tower: Any = BlipVisionModel(tower_config())  # transformers types `to` wrongly
    tower.load_state_dict(load_file(folder / "model.safetensors"))
    return tower.eval().requires_grad_(False).to(device)


def kept_patches(count: int, patches: int, seed: int) -> Int[Tensor, " kept"]:
    """The class token and a random `patches` of the `count` patches."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.zeros(1, dtype=torch.long), 1 + order[:patches]])


@torch.no_grad()
def look(
    tower: BlipVisionModel, world: World, pictures: Pictures, p: LooksParams
) -> Iterator[tuple[Float[Tensor, "n tokens width"], list[Told]]]:
    """What the tower sees of the photos, AT_ONCE at a time, in half precision, and what is true of them."""
    for batch in range(p.photos // AT_ONCE):
        wanted = plans(world, seed_for(p.seed, "looks/photos", 0), batch, AT_ONCE, chances=p.chances)
        seen = tower(pixel_values=pixels(draw(pictures, wanted, SIZE)[0])).last_hidden_state
        chosen = kept_patches(seen.shape[1] - 1, p.patches, seed_for(p.seed, "looks/patches", batch))
        yield seen[:, chosen.to(seen.device)].half().cpu(), [truth(world, one) for one in wanted]


@torch.no_grad()
def look_alone(
    tower: BlipVisionModel, world: World, pictures: Pictures, seed: int, chances: Chances
) -> Float[Tensor, "learnt width"]:
    """The class token of each thing that is taught, alone on grey and in its own colours."""
    learnt = world.of_split("train")
    views = [plan_of(world, (i,), generator(seed, "looks/alone", i), chances, [None]) for i in learnt]
    chunks = [views[i : i + AT_ONCE] for i in range(0, len(views), AT_ONCE)]
    images = (pixels(composite_on_grey(references(pictures, some, SIZE))) for some in chunks)
    return torch.cat([tower(pixel_values=some).last_hidden_state[:, 0] for some in images])


def exchanged(
    looks: Looks, world: World, chosen: Sequence[int], rng: Generator, share: float
) -> tuple[Float[Tensor, "n tokens width"], list[Told]]:
    """Chosen photos, a share of them as if another thing stood where one stands, and what is then true of them.

    A class token differs from that of the thing alone by much the same, whatever the thing. So each photo teaches
    about more than one of them.
    """
    learnt = {cutout: i for i, cutout in enumerate(world.of_split("train"))}
    seen, told = looks.seen[list(chosen)].float(), [looks.told[i] for i in chosen]
    for i in np.flatnonzero(rng.random(len(told)) < share):
        other = list(learnt)[rng.integers(len(learnt))]
        seen[i, 0] += looks.alone[learnt[other]].float() - looks.alone[learnt[told[i].cutout]].float()
        art = world.cutouts[other]
        told[i] = replace(told[i], name=art.name, noun=art.noun, cutout=other)
    return seen, told


def write(looks: Looks, file: Path) -> None:
    """One file, under a temporary name first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    told = json.dumps([astuple(t) for t in looks.told])
    save_file({"seen": looks.seen, "alone": looks.alone}, part, {"told": told})
    part.replace(file)


def read(file: Path) -> Looks:
    """What `write` wrote."""
    with safe_open(file, "pt") as looks:
        told = json.loads(looks.metadata()["told"])
        return Looks(looks.get_tensor("seen"), tuple(Told(*parts) for parts in told), looks.get_tensor("alone"))


def batch_at(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The photos of a step: all come once per round, in another order each; what is too few for a batch is left out."""
    per_round = count // batch_size
    turn, place = divmod(step, per_round)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_for(seed, "order", turn)))
    return order[place * batch_size : (place + 1) * batch_size].tolist()


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    tower: Annotated[Path, typer.Option(help="Folder of the tower that looks.")] = OUT / "tower",
    out: Annotated[Path, typer.Option(help="File of the looks.")] = OUT / "looks.safetensors",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Render photos, look at them, and keep what was seen."""
    p, device = schooling.section(LooksParams, "looks", params), ready(device)
    artwork, eyes = load_world(world), load_tower(tower, device)
    pictures = load_pictures(artwork, device)
    alone = look_alone(eyes, artwork, pictures, p.seed, p.chances).half().cpu()
    found = list(look(eyes, artwork, pictures, p))
    write(Looks(torch.cat([seen for seen, _ in found]), tuple(t for _, told in found for t in told), alone), out)


if __name__ == "__main__":
    typer.run(main)
