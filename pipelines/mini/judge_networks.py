"""The networks of the two judges, their params and their loss."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from transformers import LevitConfig, LevitModel, ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from pipelines.mini.stage_params import Section, TrainingParams
from taming_core.evaluation.judges import SIDE, no_progress_bars
from taming_core.world.plan import Chances


class ViewParams(Section):
    """How a photo of one object is rendered."""

    size: PositiveInt  # pixels
    min_size: PositiveFloat  # side of the artwork over side of the photo
    max_size: PositiveFloat
    rotation: float  # radians, standard deviation; larger rotations are undone before images are compared
    hole_chance: float  # of a hole in the mask

    def chances(self) -> Chances:
        """Plain photos of one object in its own colours."""
        return Chances(
            recolor=0, style=0, two_objects=0, attributes=0, mirror=0, turn=self.rotation,
            smallest=self.min_size, largest=self.max_size,
        )  # fmt: skip


class LenientParams(TrainingParams):
    """The judge of whole photos."""

    widths: list[PositiveInt]  # of the ResNet's stages
    depths: list[PositiveInt]
    features: PositiveInt
    recolor: float
    style: float
    max_scale: PositiveFloat  # of the logits, one over the temperature


class StrictParams(TrainingParams):
    """The judge of cut-outs; a batch has `batch_size` objects with two views each."""

    widths: list[PositiveInt]  # of the LeViT's stages
    heads: list[PositiveInt]
    depths: list[PositiveInt]
    key_width: PositiveInt
    corrupted: PositiveInt  # corrupted copies of each object, each of another kind
    corruption_weights: dict[str, PositiveFloat]  # how often each kind is drawn
    recolor: float  # share of objects in other colours than their own
    same_concept: float  # share of donors that are another design of the same concept
    views: tuple[ViewParams, ViewParams]  # reference and photo
    eval_views: tuple[ViewParams, ViewParams]  # the same, with the range of photos of the world
    max_scale: PositiveFloat
    true_accept_rate: float  # share of true pairs above the threshold
    eval_objects: PositiveInt  # of a split, at most


def lenient_network(p: LenientParams) -> ResNetForImageClassification:
    """A ResNet; its logits are the features."""
    sizes: dict[str, Any] = {"hidden_sizes": p.widths, "depths": p.depths, "num_labels": p.features}
    return ResNetForImageClassification(ResNetConfig(embedding_size=32, layer_type="basic", **sizes))


def strict_network(p: StrictParams) -> LevitModel:
    """A LeViT: convolutions, then attention; features are compared position by position, so that shape matters."""
    stages = len(p.widths)
    sizes: dict[str, Any] = {
        "hidden_sizes": p.widths, "num_attention_heads": p.heads, "depths": p.depths,
        "key_dim": [p.key_width] * stages, "mlp_ratio": [2] * stages, "attention_ratio": [2] * stages,
        "down_ops": [["Subsample", p.key_width, w // p.key_width, 4, 2, 2] for w in p.widths[:-1]],
        "by_place": True,
    }  # fmt: skip
    return LevitModel(LevitConfig(image_size=SIDE, **sizes))


class Temperature(nn.Module):
    """The learned scale of cosines, one over the temperature."""

    def __init__(self, max_scale: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(2.3))
        self.max_scale = max_scale

    def forward(self) -> Tensor:
        """The scale, at most `max_scale`."""
        return self.log.exp().clamp(max=self.max_scale)


def contrastive_loss(first: Float[Tensor, "n e"], second: Float[Tensor, "n e"], scale: Tensor) -> tuple[Tensor, float]:
    """NT-Xent over both views of a batch, and the share of views whose nearest neighbour is their partner.

    Source: Chen et al., "A Simple Framework for Contrastive Learning", 2020, equation 1.
    """
    views = F.normalize(torch.cat([first, second]).float(), dim=-1)
    diagonal = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = (scale * views @ views.T).masked_fill(diagonal, float("-inf"))
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(logits, partner), float((logits.argmax(1) == partner).float().mean())


def save(network: Any, out: Path) -> None:
    """Save in half precision, with an image processor, so that the folder opens by its name."""
    with no_progress_bars():
        network.half().save_pretrained(out)
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(out)
