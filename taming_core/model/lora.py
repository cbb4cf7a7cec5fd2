"""Low-rank changes of the denoiser's attention in place of its weights (Hu et al., "LoRA", 2022), by peft."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from taming_core.params.train import LoraParams
from taming_core.seeds import seed_for

LAYERS = ("to_q", "to_k", "to_v", "to_out.0")  # what diffusers' attention multiplies with
FOLDER = "lora"  # in the folder of an encoder


def add_lora(denoiser: Any, p: LoraParams, seed: int) -> None:
    """Give every attention layer a low-rank change, which starts as none: the denoiser says what it said."""
    alpha: Any = p.alpha  # peft types it as int, and divides it by the rank
    config = LoraConfig(
        r=p.rank, lora_alpha=alpha, lora_dropout=0.0, init_lora_weights="gaussian", target_modules=list(LAYERS)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "lora", 0))
        denoiser.add_adapter(config)


def has_lora(denoiser: nn.Module) -> bool:
    """Whether the denoiser has a LoRA, which `settle` takes away."""
    return bool(getattr(denoiser, "peft_config", None))


def save_and_fuse(pipeline: Any, folder: Path) -> None:
    """Save the LoRA as `lora/pytorch_lora_weights.safetensors` below `folder`, add it to the weights, and remove it."""
    denoiser = pipeline.denoiser
    save_lora(pipeline, {n: w.half() for n, w in lora_weights(denoiser).items()}, folder / FOLDER)
    denoiser.fuse_lora()
    denoiser.unload_lora()


def save_lora(pipeline: Any, layers: Mapping[str, Tensor], folder: Path) -> None:
    """Write a denoiser's LoRA as diffusers does it for the family."""
    whole = {name: weight.contiguous() for name, weight in layers.items()}
    type(pipeline).save_lora_weights(folder, **{f"{pipeline.family.denoiser_name}_lora_layers": whole})


def lora_weights(denoiser: Any) -> dict[str, Tensor]:
    """The LoRA under diffusers' names, with alpha / rank multiplied in, so that no reader has to know it."""
    p = denoiser.peft_config["default"]
    scale = p.lora_alpha / p.r
    found = {n: w.detach().cpu() for n, w in get_peft_model_state_dict(denoiser).items()}
    scaled = {n: w * scale if "lora_B" in n else w for n, w in found.items()}
    # Loaders of UNets know diffusers' names, those of transformers peft's.
    return convert_state_dict_to_diffusers(scaled) if isinstance(denoiser, UNet2DConditionModel) else scaled
