"""The linear heads that train the tower: one per attribute of a photo, two of them started as discriminants."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BlipVisionModel

from pipelines.mini.blip import SIZE
from pipelines.mini.stage_params import TrainingParams
from pipelines.mini.teacher_features import BATCH, facts_of, reference_features, tower_pixels
from pipelines.mini.world_data import WorldData
from taming_core.seeds import seed_for
from taming_core.world.artwork import World, class_nouns
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan
from taming_core.world.render import draw
from taming_core.world.styles import STYLES
from taming_core.world.wording import PLACES, SIZES

IGNORE = -100  # label of a class that the head lacks
FROM_CLASS_TOKEN = ("cutout", "name", "noun")  # attributes read from the class token; others from the mean patch
DISCRIMINANTS = ("cutout", "name")  # attributes whose heads start as linear discriminants


class TowerParams(TrainingParams):
    """Photos and losses of the tower."""

    chances: Chances
    weights: dict[str, PositiveFloat]  # of each attribute's loss
    discriminants_rate: PositiveFloat  # factor of the learning rate for the heads that start as discriminants
    heads_rate: PositiveFloat  # factor for the other heads
    frozen: NonNegativeInt  # lowest blocks that stay frozen
    sampled: PositiveInt  # photos to estimate the covariance of views of one object, before training
    shrinkage: PositiveFloat  # of that covariance towards a multiple of the identity
    confidence: PositiveFloat  # factor of the discriminants' weights
    workers: int  # processes that prefetch plans
    eval_photos: PositiveInt


def trained_names(world: World) -> list[str]:
    """Names of the concepts that training shows."""
    return sorted({c.name for c in world.cutouts if c.split == "train"})


def classes_of(world: World) -> dict[str, tuple[str | int, ...]]:
    """The classes of each attribute."""
    return {
        "cutout": tuple(world.of_split("train")),
        "name": tuple(trained_names(world)),
        "noun": class_nouns(),
        "scene": world.scenes,
        "style": STYLES,
        "size": ("", *SIZES),
        "place": ("", *PLACES),
    }


def labels_of(world: World, sample: Sequence[Plan]) -> dict[str, Int[Tensor, " n"]]:
    """The class index of each attribute of photos of one object; IGNORE where there is no such class."""
    facts = [asdict(facts_of(world, p)) for p in sample]
    indices = {name: {value: i for i, value in enumerate(values)} for name, values in classes_of(world).items()}
    return {name: torch.tensor([index.get(f[name], IGNORE) for f in facts]) for name, index in indices.items()}


def new_heads(world: World, width: int) -> nn.ModuleDict:
    """A linear head per attribute, all weights zero."""
    heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in classes_of(world).items()})
    for weight in heads.parameters():
        nn.init.zeros_(weight)
    return heads


def load_heads(folder: Path, world: World) -> nn.ModuleDict:
    """The heads that were trained with the tower."""
    weights = load_file(folder / "heads.safetensors")
    heads = new_heads(world, weights["name.weight"].shape[1])
    heads.load_state_dict(weights)
    return heads


def pooled_tokens(tower: BlipVisionModel, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 2 width"]:
    """Class token and mean patch of images in [0, 1]."""
    tokens = tower(pixel_values=tower_pixels(images)).last_hidden_state
    return torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], 1)


def logits_of(heads: nn.ModuleDict, pooled: Float[Tensor, "n 2 width"]) -> dict[str, Float[Tensor, "n classes"]]:
    """Logits of every attribute."""
    return {name: head(pooled[:, 0 if name in FROM_CLASS_TOKEN else 1]) for name, head in heads.items()}


def chunks_of(sample: Sequence[Plan]) -> list[Sequence[Plan]]:
    """Plans in chunks of BATCH."""
    return [sample[i : i + BATCH] for i in range(0, len(sample), BATCH)]


@torch.no_grad()
def start_heads(heads: nn.ModuleDict, tower: BlipVisionModel, data: WorldData, p: TowerParams) -> None:
    """Initialise the heads for cut-outs and names as linear discriminants of the class token (Fisher, 1936).

    The centre of a cut-out is the class token of its reference view, plus the mean difference of photos to it.
    """
    world, trained = data.world, data.world.of_split("train")
    centres = reference_features(tower, data, p.seed, p.chances)
    sample = plans(world, seed_for(p.seed, "tower/sampled", 0), 0, p.sampled, chances=p.chances)
    photos = torch.cat([pooled_tokens(tower, draw(data.pictures, c, SIZE)[0])[:, 0] for c in chunks_of(sample)])
    differences = photos - centres[[trained.index(plan.objects[0].cutout) for plan in sample]]
    centres = centres + differences.mean(0)
    names = trained_names(world)
    name_of = torch.tensor([names.index(world.cutouts[i].name) for i in trained], device=centres.device)
    means = torch.zeros(len(names), centres.shape[1], device=centres.device)
    means = means.index_add(0, name_of, centres) / name_of.bincount()[:, None]
    covariance = differences.T.cov()
    _set_discriminant(heads["cutout"], centres, covariance, p)
    _set_discriminant(heads["name"], means, covariance + (centres - means[name_of]).T.cov(), p)


def _set_discriminant(head: nn.Module, centres: Tensor, covariance: Float[Tensor, "w w"], p: TowerParams) -> None:
    """Linear discriminant analysis with a shared covariance (McLachlan, 1992, section 3.1)."""
    even = covariance.diag().mean() * torch.eye(len(covariance), device=covariance.device)
    weight = torch.linalg.solve((1 - p.shrinkage) * covariance + p.shrinkage * even, centres.T).T
    head.load_state_dict({"weight": p.confidence * weight, "bias": -0.5 * p.confidence * (weight * centres).sum(1)})
