"""F, the frozen identity network of the identity loss; evaluation never uses the same network."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from taming_core.model import clip

IdentityNetwork = Callable[[Tensor], Tensor]

HEAD = "identity_head.safetensors"  # a linear layer, trained to distinguish identities


def load_identity_network(spec: str, device: str | torch.device) -> IdentityNetwork:
    """A function from images (B, 3, H, W) in [-1, 1] to normalized features (B, E), float32 and differentiable.

    Args:
        spec: `mini`, the folder of a CLIP model, with or without `identity_head.safetensors`, or a hub name.
        device: of the network.

    Raises:
        TamingError: there is no such model.
    """
    head = Path(clip.source(spec)) / HEAD
    model = clip.load_clip(CLIPVisionModelWithProjection, spec, "train.identity_network").requires_grad_(False)
    if head.is_file():
        model.visual_projection = torch.nn.Linear(*reversed(load_file(head)["fc.weight"].shape), bias=False)
        model.visual_projection.weight = torch.nn.Parameter(load_file(head)["fc.weight"].float(), requires_grad=False)
    model.to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in clip.normalization(spec))
    size = model.config.image_size

    def identity(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
        return F.normalize(model(pixel_values=((images + 1) / 2 - mean) / std).image_embeds.float(), dim=-1)

    return identity
