"""F, the frozen identity network of the identity loss; evaluation never uses the same network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter
from torch import Tensor
from transformers import AutoConfig, CLIPVisionModelWithProjection, Dinov2Model

from taming_core.errors import TamingError
from taming_core.model import clip
from taming_core.weights.load import as_taming_error

IdentityNetwork = Callable[[Tensor], Tensor]

HEAD = "identity_head.safetensors"  # a linear layer, trained to distinguish identities
KEY, WHAT = "train.identity_network", "identity network"
NETWORKS: dict[str, Any] = {
    "clip": CLIPVisionModelWithProjection,
    "clip_vision_model": CLIPVisionModelWithProjection,
    "dinov2": Dinov2Model,
}
DINOV2_SIDE = 224  # pixels, of the published processors; DINOv2 was trained at 518, and takes any size


def load_identity_network(spec: str, device: str | torch.device) -> IdentityNetwork:
    """A function from images (B, 3, H, W) in [-1, 1] to normalized features (B, E), float32 and differentiable.

    Args:
        spec: `mini`, the folder of a CLIP or DINOv2 model, or a hub name; a CLIP model may have an
            `identity_head.safetensors`.
        device: of the network.

    Raises:
        TamingError: there is no such model, or it is of another kind.
    """
    head = Path(clip.source(spec)) / HEAD
    model = clip.load_clip(network_class(spec), spec, KEY, WHAT).requires_grad_(False)
    if head.is_file():
        model.visual_projection = torch.nn.Linear(*reversed(load_file(head)["fc.weight"].shape), bias=False)
        model.visual_projection.weight = torch.nn.Parameter(load_file(head)["fc.weight"].float(), requires_grad=False)
    model.to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in clip.normalization(spec))
    size = image_side(model.config)

    def identity(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
        return F.normalize(identity_features(model, ((images + 1) / 2 - mean) / std), dim=-1)

    return identity


def network_class(spec: str) -> Any:
    """The class of an identity network, by the model type of its config.

    Raises:
        TamingError: there is no such model, or it is of another kind.
    """
    auto_config: Any = AutoConfig
    with as_taming_error(clip.source(spec), WHAT, KEY):
        kind = auto_config.from_pretrained(clip.source(spec)).model_type
    if kind not in NETWORKS:
        raise TamingError(f"{spec} is a {kind} model. Name a CLIP or DINOv2 model as {KEY}.")
    return NETWORKS[kind]


def image_side(config: Any) -> int:
    """The side in pixels of an identity network's images."""
    return min(config.image_size, DINOV2_SIDE) if config.model_type == "dinov2" else config.image_size


def identity_features(model: Any, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch features"]:
    """Features in float32: of CLIP its projection, of DINOv2 its class token after the last norm."""
    out = model(pixel_values=pixels)
    return (out.image_embeds if "image_embeds" in out else out.pooler_output).float()
