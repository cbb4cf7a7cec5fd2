"""A `decoupled` encoder as an IP-Adapter (Ye et al., "IP-Adapter", 2023), in the layout that `load_ip_adapter` reads.

Two kinds: base (`linear`, from the tower's pooled output), and for UNets also plus (`resampler`, from the states before
the tower's last block). Stock diffusers then computes the same as TamingPipeline.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  (its dict is untyped)
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from taming_core.errors import TamingError
from taming_core.model.object_encoder import ObjectEncoder, frozen_zero_biases

FILE = "ip_adapter.safetensors"
TOKENS = 4  # of a base IP-Adapter: the only number that diffusers supports,
FLUX_TOKENS, FLUX_ROWS = 16, 65536  # except for a FLUX adapter whose projector has this many rows
REMEDY = "Export it with --to diffusers, or train one with `train.injection: decoupled`."
PLUS = {"ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out", "ff.0": "1.0",
        "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}  # fmt: skip


def require_exportable(encoder: ObjectEncoder, denoiser: Any) -> None:
    """Refuse an encoder that stock diffusers cannot load as an IP-Adapter.

    Raises:
        TamingError: the injection is not `decoupled`, the tokens depend on the prompt or have positions, the object has
            a place, stock diffusers does not support the projector or the tower, or this is a denoiser whose
            self-attention layers read the text.
    """
    config = encoder.config
    if config["binding"] is not None:
        raise TamingError("This encoder binds objects to the prompt's <object> (train.binding), and an IP-Adapter does "
                          "not read the prompt. Export it with --to diffusers.")  # fmt: skip
    if config["positions"]:
        raise TamingError("This encoder adds positions to its tokens (train.positions), and an IP-Adapter has none. "
                          "Export it with --to diffusers.")  # fmt: skip
    if config["collage"] is not None:
        raise TamingError("This encoder lays the object into the image (train.collage), and an IP-Adapter does not. "
                          "Export it with --to diffusers.")  # fmt: skip
    if config["injection"] != "decoupled":
        raise TamingError(f"An IP-Adapter adds separate keys and values to the cross-attentions, and this encoder is "
                          f"{config['injection']}. {REMEDY}")  # fmt: skip
    flux = isinstance(denoiser, FluxTransformer2DModel)
    if not flux and not isinstance(denoiser, UNet2DConditionModel):
        raise TamingError("IP-Adapters are exported for Stable Diffusion 1.5, 2.1 and XL and for FLUX.1, and this is a "
                          f"{type(denoiser).__name__}. Export it with --to diffusers.")  # fmt: skip
    if not flux and any(_as_list(denoiser.config["only_cross_attention"])):
        raise TamingError("In this base model even self-attentions read the text (only_cross_attention), where stock "
                          "diffusers does not support an IP-Adapter. Export it with --to diffusers.")  # fmt: skip
    projectors = ("linear",) if flux else ("linear", "resampler")
    if config["projector"] not in projectors:
        raise TamingError(f"Stock diffusers has no IP-Adapter with the projector {config['projector']} for this base. "
                          f"Train with {' or '.join(projectors)}, or export it with --to diffusers.")  # fmt: skip
    tokens = [TOKENS, *([FLUX_TOKENS] if flux and config["width"] == FLUX_ROWS // FLUX_TOKENS else [])]
    if config["projector"] == "linear" and config["tokens"] not in tokens:
        raise TamingError(f"A base IP-Adapter has {TOKENS} tokens, and this encoder {config['tokens']}. Train with "
                          f"`tokens: {TOKENS}`, or export it with --to diffusers.")  # fmt: skip
    if not isinstance(encoder.vision, CLIPVisionModel):
        raise TamingError("Stock diffusers loads only CLIP towers with an IP-Adapter. Train with one, or export "
                          "with --to diffusers.")  # fmt: skip


def write(encoder: ObjectEncoder, denoiser: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write the adapter's file and `image_encoder/` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = adapter(encoder, denoiser)
    save_file({n: w.detach().to(dtype).contiguous() for n, w in weights.items()}, folder / FILE, {"format": "pt"})
    model, size = cast(Any, image_encoder(encoder)), encoder.image_size
    model.to(dtype).save_pretrained(folder / "image_encoder")
    cast(Any, CLIPImageProcessor(size=size, crop_size=size)).save_pretrained(folder / "image_encoder")


def adapter(encoder: ObjectEncoder, denoiser: nn.Module) -> dict[str, Tensor]:
    """The weights by the names that `load_ip_adapter` reads.

    Raises:
        TamingError: see `require_exportable`.
    """
    require_exportable(encoder, denoiser)
    project = base_projector if encoder.config["projector"] == "linear" else plus_projector
    parts = {"image_proj": project(encoder.projection.state_dict()), "ip_adapter": attention(encoder, denoiser)}
    return {f"{part}.{name}": w for part, weights in parts.items() for name, w in weights.items()}


def attention(encoder: ObjectEncoder, denoiser: Any) -> dict[str, Tensor]:
    """Keys and values of every cross-attention, zero in layers without object attention.

    Numbered as in diffusers, in the order of the denoiser's processors: odd numbers for the cross-attentions of a UNet,
    all numbers for the double-stream layers of FLUX, which also have biases.
    """
    layers: Mapping[str, Any] = encoder.denoiser_layers()
    flux = isinstance(denoiser, FluxTransformer2DModel)
    processors: list[str] = [
        name
        for name in denoiser.attn_processors
        if not (name.startswith("single_") if flux else name.endswith("attn1.processor"))
    ]
    names = [name.removesuffix(".processor") for name in processors]
    weights: dict[str, Tensor] = {}
    for i, name in enumerate(names):
        number = i if flux else 2 * i + 1
        attn: Any = denoiser.get_submodule(name)
        for part in ("k", "v"):
            zero = torch.zeros(attn.inner_dim, encoder.config["width"])
            weight = getattr(layers[name], f"to_{part}").weight if name in layers else zero
            weights[f"{number}.to_{part}_ip.weight"] = weight
            if flux:
                weights[f"{number}.to_{part}_ip.bias"] = torch.zeros(attn.inner_dim)
    return weights


def base_projector(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `linear` projector by the names of the base IP-Adapter."""
    return {name.replace("image_embeds", "proj"): w for name, w in state.items()}


def plus_projector(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `resampler` projector by the names of IP-Adapter Plus."""
    weights: dict[str, Tensor] = {}
    for name, w in state.items():
        if not name.startswith("layers."):
            weights[name] = w
            continue
        _, layer, part = name.split(".", 2)
        stem, _, kind = part.rpartition(".")
        if stem == "attn.to_k":
            weights[f"layers.{layer}.0.to_kv.{kind}"] = torch.cat([w, state[name.replace("to_k", "to_v")]])
        elif stem != "attn.to_v":
            weights[f"layers.{layer}.{PLUS[stem]}.{kind}"] = w
    return weights


@torch.no_grad()
def image_encoder(encoder: ObjectEncoder) -> CLIPVisionModelWithProjection:
    """The tower as the class that diffusers loads, for images normalized with CLIP's mean and deviation.

    The base kind reads the tower's pooled output itself, so that the projection after it is the identity; the plus kind
    does not read it.
    """
    tower = encoder.vision
    size = tower.config.hidden_size
    config = {**tower.config.to_dict(), "projection_dim": size}
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
    body: Any = model.vision_model
    body.load_state_dict(tower.state_dict())
    model.visual_projection.weight.copy_(torch.eye(size))
    fold_clip_normalization(body.embeddings, encoder.config["mean"], encoder.config["std"])
    return model


def fold_clip_normalization(embeddings: Any, mean: Any, std: Any) -> None:
    """Change a tower so that images normalized with CLIP's mean and deviation give the same features.

    The patch embedding is linear, and every patch has a position embedding: the scale goes into the former, the shift
    into the latter. `mean` and `std` are those that the tower was trained with.
    """
    processor: Any = CLIPImageProcessor()
    tower_mean, tower_std, clip_mean, clip_std = (
        torch.tensor(x, dtype=torch.float64) for x in (mean, std, processor.image_mean, processor.image_std)
    )
    weight = embeddings.patch_embedding.weight
    shift = torch.einsum("ocij,c->o", weight.double(), (clip_mean - tower_mean) / tower_std)
    embeddings.position_embedding.weight[1:] += shift.to(weight.dtype)  # the first is the class token's
    weight.copy_(weight.double() * (clip_std / tower_std).view(1, 3, 1, 1))


def guides_exactly(encoder: ObjectEncoder) -> bool:
    """Whether the unconditional embedding of stock diffusers adds nothing with this adapter, as in TamingPipeline."""
    biases = frozen_zero_biases(encoder)
    return bool(biases) and not any(b.any() for b in biases)


def _as_list(only: bool | list[bool] | tuple[bool, ...]) -> list[bool]:
    return [only] if isinstance(only, bool) else list(only)
