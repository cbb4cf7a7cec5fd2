"""A `decoupled` encoder as an IP-Adapter (Ye et al., "IP-Adapter", 2023), in the layout that `load_ip_adapter` reads.

Two kinds: base (`linear`, from the tower's summary), and for UNets also plus (`resampler`, from the states below the
tower's last block). What stock diffusers then computes is what TamingPipeline computes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from taming_core.errors import TamingError
from taming_core.model.object_encoder import ObjectEncoder, frozen_zero_biases

FILE = "ip_adapter.safetensors"
TOKENS = 4  # of a base IP-Adapter; diffusers knows no other number,
FLUX_TOKENS, FLUX_ROWS = 16, 65536  # but where a FLUX adapter's projector has so many rows
OTHERWISE = "Export it with --to diffusers, or train one with `train.injection: decoupled`."
PLUS = {"ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out", "ff.0": "1.0",
        "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}  # fmt: skip


def require_exportable(encoder: ObjectEncoder, denoiser: Any) -> None:
    """Refuse what no IP-Adapter of stock diffusers can say.

    Raises:
        TamingError: another network design than `decoupled`, a projector or a tower that stock diffusers does not know,
            or a denoiser whose self-attention layers read the text.
    """
    config = encoder.config
    if config["injection"] != "decoupled":
        raise TamingError(f"An IP-Adapter adds keys and values of its own to the cross-attentions, and this encoder is "
                          f"{config['injection']}. {OTHERWISE}")  # fmt: skip
    flux = isinstance(denoiser, FluxTransformer2DModel)
    if not flux and not isinstance(denoiser, UNet2DConditionModel):
        raise TamingError("IP-Adapters are exported for Stable Diffusion 1.5, 2.1 and XL and for FLUX.1, and this is a "
                          f"{type(denoiser).__name__}. Export it with --to diffusers.")  # fmt: skip
    if not flux and any(_flags(denoiser.config["only_cross_attention"])):
        raise TamingError("In this base model even self-attentions read the text (only_cross_attention), where stock "
                          "diffusers has no place for an IP-Adapter. Export it with --to diffusers.")  # fmt: skip
    known = ("linear",) if flux else ("linear", "resampler")
    if config["projector"] not in known:
        raise TamingError(f"Stock diffusers knows no IP-Adapter with the projector {config['projector']} here. Train "
                          f"with {' or '.join(known)}, or export it with --to diffusers.")  # fmt: skip
    tokens = [TOKENS, *([FLUX_TOKENS] if flux and config["width"] == FLUX_ROWS // FLUX_TOKENS else [])]
    if config["projector"] == "linear" and config["tokens"] not in tokens:
        raise TamingError(f"A base IP-Adapter has {TOKENS} tokens, and this encoder {config['tokens']}. Train with "
                          f"`tokens: {TOKENS}`, or export it with --to diffusers.")  # fmt: skip
    if not isinstance(encoder.vision, CLIPVisionModel):
        raise TamingError("Beside an IP-Adapter stock diffusers loads CLIP towers alone. Train with one, or export "
                          "with --to diffusers.")  # fmt: skip


def write(encoder: ObjectEncoder, denoiser: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Put the adapter's file and `image_encoder/` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = adapter(encoder, denoiser)
    save_file({n: w.detach().to(dtype).contiguous() for n, w in found.items()}, folder / FILE, {"format": "pt"})
    model, size = image_encoder(encoder), encoder.image_size
    model.to(dtype).save_pretrained(folder / "image_encoder")  # pyright: ignore[reportArgumentType]
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder / "image_encoder")


def adapter(encoder: ObjectEncoder, denoiser: nn.Module) -> dict[str, Tensor]:
    """The weights by the names that `load_ip_adapter` reads.

    Raises:
        TamingError: see `require_exportable`.
    """
    require_exportable(encoder, denoiser)
    projected = base_projector if encoder.config["projector"] == "linear" else plus_projector
    parts = {"image_proj": projected(encoder.projection.state_dict()), "ip_adapter": attention(encoder, denoiser)}
    return {f"{part}.{name}": w for part, weights in parts.items() for name, w in weights.items()}


def attention(encoder: ObjectEncoder, denoiser: Any) -> dict[str, Tensor]:
    """Keys and values of every cross-attention, zero where a layer does not see the object.

    The numbers are diffusers', in the order of the denoiser's processors: odd ones for the cross-attentions of a UNet,
    all for the layers of FLUX in which image and text have maps of their own, where it wants biases, too.
    """
    layers: Mapping[str, Any] = encoder.denoiser_layers()
    flux = isinstance(denoiser, FluxTransformer2DModel)
    without = (lambda n: n.startswith("single_")) if flux else (lambda n: n.endswith("attn1.processor"))
    names = [n.removesuffix(".processor") for n in denoiser.attn_processors if not without(n)]
    found = {}
    for i, name in enumerate(names):
        number = i if flux else 2 * i + 1
        attn: Any = denoiser.get_submodule(name)
        for part in ("k", "v"):
            unseen = torch.zeros(attn.inner_dim, encoder.config["width"])
            weight = getattr(layers[name], f"to_{part}").weight if name in layers else unseen
            found[f"{number}.to_{part}_ip.weight"] = weight
            if flux:
                found[f"{number}.to_{part}_ip.bias"] = torch.zeros(attn.inner_dim)
    return found


def base_projector(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`linear` under the names of the base IP-Adapter."""
    return {name.replace("image_embeds", "proj"): w for name, w in state.items()}


def plus_projector(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`resampler` under the names of IP-Adapter Plus."""
    found = {}
    for name, w in state.items():
        if not name.startswith("layers."):
            found[name] = w
            continue
        _, layer, part = name.split(".", 2)
        stem, _, kind = part.rpartition(".")
        if stem == "attn.to_k":
            found[f"layers.{layer}.0.to_kv.{kind}"] = torch.cat([w, state[name.replace("to_k", "to_v")]])
        elif stem != "attn.to_v":
            found[f"layers.{layer}.{PLUS[stem]}.{kind}"] = w
    return found


@torch.no_grad()
def image_encoder(encoder: ObjectEncoder) -> CLIPVisionModelWithProjection:
    """The tower as the class that diffusers loads, for pictures normalized as CLIP's are.

    The base kind reads the tower's summary itself, so that the projection after it is the identity; the plus kind does
    not read it.
    """
    tower = encoder.vision
    size = tower.config.hidden_size
    config = {**tower.config.to_dict(), "projection_dim": size}
    found = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
    body: Any = found.vision_model
    body.load_state_dict(tower.state_dict())
    found.visual_projection.weight.copy_(torch.eye(size))
    take_clip_pictures(body.embeddings, encoder.config["mean"], encoder.config["std"])
    return found


def take_clip_pictures(embeddings: Any, mean: Any, std: Any) -> None:
    """Change a tower for pictures of another mean and deviation, so that it says the same of CLIP's.

    The patches' map is linear, and each patch has a place of its own: the scale goes into the map, the shift into the
    places.
    """
    processor: Any = CLIPImageProcessor()
    own_mean, own_std, clip_mean, clip_std = (
        torch.tensor(x, dtype=torch.float64) for x in (mean, std, processor.image_mean, processor.image_std)
    )
    weight = embeddings.patch_embedding.weight
    shift = torch.einsum("ocij,c->o", weight.double(), (clip_mean - own_mean) / own_std)
    embeddings.position_embedding.weight[1:] += shift.to(weight.dtype)  # the first is the class token's
    weight.copy_(weight.double() * (clip_std / own_std).view(1, 3, 1, 1))


def guides_exactly(encoder: ObjectEncoder) -> bool:
    """Whether stock diffusers' own null of this adapter adds nothing, as TamingPipeline's does."""
    biases = frozen_zero_biases(encoder)
    return bool(biases) and not any(b.any() for b in biases)


def _flags(only: bool | list[bool] | tuple[bool, ...]) -> list[bool]:
    return [only] if isinstance(only, bool) else list(only)
