"""LoRA of the denoiser's attention layers (Hu et al., "LoRA", 2022), by peft."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers  # pyright: ignore[reportUnknownVariableType]  # untyped
from peft import LoraConfig, get_peft_model_state_dict  # pyright: ignore[reportUnknownVariableType]  # partly untyped
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter
from torch import Tensor, nn

from taming_core.params.train import LoraParams
from taming_core.seeds import seed_for

LAYERS = ("to_q", "to_k", "to_v", "to_out.0")  # the projections of diffusers' attention
FOLDER = "lora"  # in the folder of an encoder
FILE = f"{FOLDER}/pytorch_lora_weights.safetensors"


def add_lora(denoiser: Any, p: LoraParams, seed: int) -> None:
    """Add a LoRA to every attention layer; it starts at zero, so that the denoiser output is unchanged."""
    alpha: Any = p.alpha  # peft types it as int, and divides it by the rank
    config = LoraConfig(
        r=p.rank, lora_alpha=alpha, lora_dropout=0.0, init_lora_weights="gaussian", target_modules=list(LAYERS)
    )
    random: Any = torch.random
    with random.fork_rng(devices=[]):
        random.manual_seed(seed_for(seed, "lora", 0))
        denoiser.add_adapter(config)


def has_lora(denoiser: nn.Module) -> bool:
    """Whether the denoiser has a LoRA, which `save_and_fuse` would fuse."""
    return bool(getattr(denoiser, "peft_config", None))


def save_and_fuse(pipeline: Any, folder: Path) -> None:
    """Save the LoRA to `folder`/lora/pytorch_lora_weights.safetensors, fuse it into the weights, and unload it."""
    denoiser = pipeline.denoiser
    save_lora(pipeline, {n: w.half() for n, w in lora_weights(denoiser).items()}, folder / FOLDER)
    denoiser.fuse_lora()
    denoiser.unload_lora()


def save_lora(pipeline: Any, layers: Mapping[str, Tensor], folder: Path) -> None:
    """Write a denoiser's LoRA in diffusers' format for its family."""
    contiguous = {name: weight.contiguous() for name, weight in layers.items()}
    pipeline.save_lora_weights(folder, **{f"{pipeline.family.denoiser_name}_lora_layers": contiguous})


def fuse_file(pipeline: Any, folder: Path) -> None:
    """Fuse the LoRA of an encoder folder into the denoiser's weights, if the folder has one."""
    if (folder / FILE).is_file():
        pipeline.denoiser.load_lora_adapter(load_file(folder / FILE), prefix=pipeline.family.denoiser_name)
        pipeline.denoiser.fuse_lora()
        pipeline.denoiser.unload_lora()


def stack(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Two LoRAs of the same layers as one, whose rank is the sum of theirs: [B B'] [A; A'] = BA + B'A'."""
    rank_dim = {n: 0 if "lora_A" in n or "lora.down" in n else 1 for n in second}
    return {n: torch.cat([first[n].to(w.dtype), w], rank_dim[n]) for n, w in second.items()}


def lora_weights(denoiser: Any, trained: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The LoRA under diffusers' names, with alpha / rank multiplied in, so that loaders need not know alpha.

    Its weights are those that `trained` has by the denoiser's names, or else the denoiser's.
    """
    p = denoiser.peft_config["default"]
    scale = p.lora_alpha / p.r
    state = get_peft_model_state_dict(denoiser, None if trained is None else dict(trained))
    weights = {n: w.detach().cpu() for n, w in state.items()}
    scaled: dict[str, Tensor] = {n: w * scale if "lora_B" in n else w for n, w in weights.items()}
    # Diffusers' loaders expect its own names for a UNet, and peft's names for a transformer.
    if not isinstance(denoiser, UNet2DConditionModel):
        return scaled
    return cast("dict[str, Tensor]", convert_state_dict_to_diffusers(scaled))
