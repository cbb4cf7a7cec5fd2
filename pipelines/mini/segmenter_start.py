"""How the segmenter is initialised: a SAM whose image tower has the weights of CLIP's vision tower."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from segment_anything.modeling import Sam
from torch import Tensor, nn
from transformers import CLIPVisionModel

from pipelines.mini.stage_params import TrainingParams
from taming_core.objects.segmenter import PIXEL_MEAN, PIXEL_STD, CropSettings, assemble, encoder, read_state
from taming_core.world.plan import Chances


class SegmenterParams(TrainingParams):
    """Architecture and training of the segmenter; a batch is `batch_size` photos with one or two objects each."""

    tower_rate: PositiveFloat  # factor of the learning rate for the image tower, which is pretrained
    start: str  # `clip`, whose vision tower becomes the image tower, or a file of a SAM of the same widths
    depth: PositiveInt  # first layers of the tower that are kept
    hidden: PositiveInt  # units of each layer's MLP that are kept, the strongest
    width: PositiveInt  # of the prompts and of the mask decoder
    mlp_width: PositiveInt  # of the mask decoder
    quality_width: PositiveInt
    view: CropSettings
    sizes: tuple[PositiveInt, ...]  # sides in pixels of the photos, in turn
    chances: Chances
    overlap_chance: float = Field(ge=0, le=1)  # of two objects, that they are moved together
    box_jitter: float = Field(ge=0)  # largest shift of the sides of a box, over its width and height
    edge_weight: float = Field(ge=0)  # extra weight of pixels near an outline
    min_pixels: PositiveInt  # objects with fewer visible pixels are skipped


def build(clip: CLIPVisionModel, photos: Float[Tensor, "n 3 size size"], p: SegmenterParams) -> Sam:
    """A SAM in the shape of CLIP's tower, with global attention in every layer and one mask per box."""
    shape: Any = clip.config
    grid = shape.image_size // shape.patch_size
    tower = encoder(
        image_size=shape.image_size, patch_size=shape.patch_size, width=shape.hidden_size, depth=p.depth,
        heads=shape.num_attention_heads, mlp_ratio=p.hidden / shape.hidden_size, window=grid,
        global_layers=tuple(range(p.depth)), prompt_width=p.width,
    )  # fmt: skip
    sam = assemble(
        tower, p.width, grid,
        mask_channels=4, mlp_width=p.mlp_width, extra_masks=0, quality_width=p.quality_width,
    )  # fmt: skip
    if p.start == "clip":
        start = {f"image_encoder.{name}": weight for name, weight in clip_start(clip, photos).items()}
    else:
        start = read_state(Path(p.start))
    sam.load_state_dict(sam.state_dict() | thinned(start, p.depth, p.hidden))
    return sam


def thinned(state: Mapping[str, Tensor], depth: int, hidden: int) -> dict[str, Tensor]:
    """The first `depth` layers of SAM's tower with the `hidden` strongest units of each MLP, and the rest."""
    kept = {name: w for name, w in state.items() if _layer(name) < depth}
    for i in range(depth):
        into, out = f"image_encoder.blocks.{i}.mlp.lin1", f"image_encoder.blocks.{i}.mlp.lin2"
        strength = kept[f"{into}.weight"].norm(dim=1) * kept[f"{out}.weight"].norm(dim=0)
        units = strength.topk(hidden).indices.sort().values
        kept |= {f"{into}.{kind}": kept[f"{into}.{kind}"][units] for kind in ("weight", "bias")}
        kept[f"{out}.weight"] = kept[f"{out}.weight"][:, units]
    return kept


def _layer(name: str) -> int:
    """The layer of the image tower that a weight belongs to, -1 for other weights."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["image_encoder", "blocks"] else -1


@torch.no_grad()
def clip_start(clip: CLIPVisionModel, photos: Float[Tensor, "n 3 size size"]) -> dict[str, Tensor]:
    """CLIP's tower under SAM's names, so that both compute nearly the same tokens of photos in [0, 1].

    CLIP normalizes its tokens before the first layer, SAM does not. With the mean standard deviation of the tokens of
    `photos` instead of each token's own, the norm is affine, and is folded into patch and position embedding.
    """
    patches = clip.embeddings.patch_embedding.weight
    positions = clip.embeddings.position_embedding.weight[1:]  # SAM has no class token
    tokens = F.conv2d(2 * photos - 1, patches, stride=patches.shape[-1]).flatten(2).mT + positions
    norm = folded_norm(clip.pre_layrnorm, tokens)
    patches = torch.einsum("ij,jchw->ichw", norm, patches)
    mean, std = torch.tensor(PIXEL_MEAN) / 127.5 - 1, torch.tensor(PIXEL_STD) / 127.5  # of SAM, in CLIP's pixel range
    grid = math.isqrt(len(positions))
    start = {
        "patch_embed.proj.weight": patches * std[:, None, None],
        "patch_embed.proj.bias": torch.einsum("ichw,c->i", patches, mean),
        "pos_embed": (positions @ norm.mT + clip.pre_layrnorm.bias).view(1, grid, grid, -1),
    }
    for i, layer in enumerate(clip.encoder.layers):
        start |= {f"blocks.{i}.{name}": tensor for name, tensor in block_weights(layer.state_dict()).items()}
    return start


def folded_norm(norm: nn.LayerNorm, tokens: Float[Tensor, "n m width"]) -> Float[Tensor, "width width"]:
    """The matrix that approximates `norm` without its bias, with the mean deviation of these tokens."""
    width = tokens.shape[-1]
    centring = torch.eye(width) - 1 / width
    return norm.weight[:, None] * centring * (1 / tokens.std(-1, unbiased=False)).mean()


def block_weights(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CLIP layer under SAM's names; SAM's relative positions stay at zero."""
    names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.lin1", "mlp.fc2": "mlp.lin2",
             "self_attn.out_proj": "attn.proj"}  # fmt: skip
    kinds = ("weight", "bias")
    same = {f"{to}.{kind}": layer[f"{name}.{kind}"] for name, to in names.items() for kind in kinds}
    joint = {f"attn.qkv.{kind}": torch.cat([layer[f"self_attn.{n}_proj.{kind}"] for n in "qkv"]) for kind in kinds}
    return same | joint
