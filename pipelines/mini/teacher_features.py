"""Compute the features of the trained tower for many photos once; captioner and matcher train on these.

It also computes the features of every object alone, so that training can swap objects; see `swap_objects`.

Example:  python -m pipelines.mini.teacher_features
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float, Int
from numpy.random import Generator
from pydantic import PositiveInt
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BlipVisionModel

from pipelines.mini.blip import SIZE, TOWER_SIZE, tower_config
from pipelines.mini.options import DeviceName, ParamsFile, TowerFolder, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, Section, load_section, require_outside_package
from pipelines.mini.world_data import WorldData, load_data
from taming_core.seeds import seed_for
from taming_core.world.artwork import World
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan, generator, plan_of
from taming_core.world.render import composite_on_grey, draw, references
from taming_core.world.wording import facts_of as parse_caption

FILE = OUT / "teacher_features.safetensors"
BATCH = 64  # photos at once; changes features only by rounding


class TeacherParams(Section):
    """The photos that captioner and matcher train on, and how many patches are kept of each."""

    seed: int
    photos: PositiveInt  # a multiple of BATCH
    patches: PositiveInt  # kept of each photo, drawn at random
    chances: Chances  # one object in its own colours; attributes 1, so that size and place are known


@dataclass(frozen=True)
class PhotoFacts:
    """The true caption of a photo of one object, in parts; size and place are empty where they are not notable."""

    style: str  # "a photo of"
    name: str  # "squirrel"
    noun: str  # "animal"
    scene: str  # "on the beach"
    size: str  # "small"
    place: str  # ", on the left"
    cutout: int  # index in `World.cutouts`


@dataclass(frozen=True)
class TeacherFeatures:
    """Features of the tower in half precision, and the facts of each photo."""

    photos: Float[Tensor, "photos tokens width"]  # the class token, then some of the patches
    facts: tuple[PhotoFacts, ...]
    references: Float[Tensor, "trained width"]  # the class token of each trained object alone, in the world's order


def facts_of(world: World, p: Plan) -> PhotoFacts:
    """The facts of the plan of one object that was drawn with attributes 1."""
    (item,) = p.objects
    place = parse_caption(p.caption, world.scenes).place
    return PhotoFacts(p.style, item.words, world.cutouts[item.cutout].noun, p.scene, item.size, place, item.cutout)


def tower_pixels(images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 3 small small"]:
    """Images in [0, 1] as the processor passes them to the tower, in [-1, 1]."""
    small = F.interpolate(images, size=(TOWER_SIZE, TOWER_SIZE), mode="bicubic", antialias=True, align_corners=False)
    return small.clamp(0, 1) * 2 - 1


def load_tower(folder: Path, device: str) -> BlipVisionModel:
    """The trained tower, frozen."""
    tower: Any = BlipVisionModel(tower_config())  # transformers types `to` wrongly
    tower.load_state_dict(load_file(folder / "model.safetensors"))
    return tower.eval().requires_grad_(False).to(device)


def sample_patches(count: int, patches: int, seed: int) -> Int[Tensor, " kept"]:
    """Token indices of the class token and of a random `patches` of the `count` patches."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.zeros(1, dtype=torch.long), 1 + order[:patches]])


@torch.no_grad()
def photo_features(
    tower: BlipVisionModel, data: WorldData, p: TeacherParams
) -> Iterator[tuple[Float[Tensor, "n tokens width"], list[PhotoFacts]]]:
    """Features of BATCH photos at a time in half precision, with their facts."""
    for batch in range(p.photos // BATCH):
        sample = plans(data.world, seed_for(p.seed, "looks/photos", 0), batch, BATCH, chances=p.chances)
        features = tower(pixel_values=tower_pixels(draw(data.pictures, sample, SIZE)[0])).last_hidden_state
        kept = sample_patches(features.shape[1] - 1, p.patches, seed_for(p.seed, "looks/patches", batch))
        yield features[:, kept.to(features.device)].half().cpu(), [facts_of(data.world, one) for one in sample]


@torch.no_grad()
def reference_features(
    tower: BlipVisionModel, data: WorldData, seed: int, chances: Chances
) -> Float[Tensor, "trained width"]:
    """The class token of each trained object, alone on grey in its own colours."""
    trained = data.world.of_split("train")
    views = [plan_of(data.world, (i,), generator(seed, "looks/alone", i), chances, [None]) for i in trained]
    chunks = [views[i : i + BATCH] for i in range(0, len(views), BATCH)]
    images = (tower_pixels(composite_on_grey(references(data.pictures, chunk, SIZE))) for chunk in chunks)
    return torch.cat([tower(pixel_values=chunk).last_hidden_state[:, 0] for chunk in images])


def swap_objects(
    teacher: TeacherFeatures, world: World, chosen: Sequence[int], rng: Generator, share: float
) -> tuple[Float[Tensor, "n tokens width"], list[PhotoFacts]]:
    """Features and facts of the chosen photos, a share of them as if they showed another object.

    The class token of a photo differs from that of its object alone by about the same vector, whatever the object: so
    this difference is added to the class token of another object. Patches stay.
    """
    rows = {cutout: i for i, cutout in enumerate(world.of_split("train"))}
    features, facts = teacher.photos[list(chosen)].float(), [teacher.facts[i] for i in chosen]
    for i in np.flatnonzero(rng.random(len(facts)) < share):
        other = list(rows)[rng.integers(len(rows))]
        features[i, 0] += teacher.references[rows[other]].float() - teacher.references[rows[facts[i].cutout]].float()
        art = world.cutouts[other]
        facts[i] = replace(facts[i], name=art.name, noun=art.noun, cutout=other)
    return features, facts


def write(teacher: TeacherFeatures, file: Path) -> None:
    """Write one file, under a temporary name first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    facts = json.dumps([astuple(f) for f in teacher.facts])
    save_file({"photos": teacher.photos, "references": teacher.references}, part, {"facts": facts})
    part.replace(file)


def read(file: Path) -> TeacherFeatures:
    """Read what `write` wrote."""
    with safe_open(file, "pt") as opened:
        facts = tuple(PhotoFacts(*fields) for fields in json.loads(opened.metadata()["facts"]))
        return TeacherFeatures(opened.get_tensor("photos"), facts, opened.get_tensor("references"))


def shuffled_batch(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The photos of a step: each epoch has its own order, and its last incomplete batch is dropped."""
    epoch, place = divmod(step, count // batch_size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_for(seed, "order", epoch)))
    return order[place * batch_size : (place + 1) * batch_size].tolist()


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    tower: TowerFolder = OUT / "tower",
    out: Annotated[Path, typer.Option(help="File to write the features to.")] = FILE,
    device: DeviceName = "auto",
) -> None:
    """Render photos, run the tower on them, and store its features."""
    require_outside_package(out)
    p, data = load_section(TeacherParams, "teacher_features", params), load_data(world, device)
    teacher = load_tower(tower, data.device)
    alone = reference_features(teacher, data, p.seed, p.chances).half().cpu()
    batches = list(photo_features(teacher, data, p))
    photos = torch.cat([features for features, _ in batches])
    write(TeacherFeatures(photos, tuple(f for _, facts in batches for f in facts), alone), out)


if __name__ == "__main__":
    typer.run(main)
