"""The base model of `mini`: its params, its parts, and the error of the predicted velocity."""

from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from pipelines.mini.autoencoder import posterior
from pipelines.mini.devices import autocast
from pipelines.mini.stage_params import TrainingParams
from pipelines.mini.training_loop import save_half_precision
from taming_core.bases.load import load_base
from taming_core.fingerprints import hash_of
from taming_core.model.clip import load_clip
from taming_core.model.diffusion import Noise, add_noise, training_target
from taming_core.weights.mini import BASE
from taming_core.world.plan import Chances


class BaseParams(TrainingParams):
    """Denoiser, photos and measurements of the base model."""

    start: str | None  # mini or a folder of a base model to continue from; null for a fresh denoiser
    size: PositiveInt  # side of a photo in pixels
    widths: list[PositiveInt] | None  # channels of a fresh denoiser per level; each but the first halves the side
    heads: list[PositiveInt] | None  # of attention per level
    chances: Chances
    text_drop: float  # share of captions that are dropped, for classifier-free guidance
    text_rate: PositiveFloat  # factor of the learning rate for the text encoder
    compile: bool  # torch.compile on a GPU: minutes at the start, then faster steps
    workers: int  # processes that prefetch plans
    timesteps: list[int]  # of the held-out loss
    eval_photos: PositiveInt  # per timestep
    prompts: PositiveInt  # images drawn to measure text-to-image

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> "BaseParams":
        if [self.start is None] * 2 != [self.widths is not None, self.heads is not None]:
            raise ValueError("base.widths and base.heads must be set where base.start is null, else null")
        return self


def new_denoiser(
    widths: Sequence[int], heads: Sequence[int], latent_channels: int, side: int, text_width: int
) -> UNet2DConditionModel:
    """An untrained denoiser; its widest level has two cross-attention layers and no self-attention."""
    levels = len(widths)
    shape: dict[str, Any] = {
        "sample_size": side, "in_channels": latent_channels, "out_channels": latent_channels,
        "block_out_channels": tuple(widths), "attention_head_dim": tuple(heads), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * levels, "up_block_types": ("CrossAttnUpBlock2D",) * levels,
        "only_cross_attention": (True, *(False,) * (levels - 1)), "mid_block_type": "UNetMidBlock2DCrossAttn",
        "cross_attention_dim": text_width, "norm_num_groups": gcd(32, *widths),
    }  # fmt: skip
    return UNet2DConditionModel(**shape)


def new_scheduler() -> DDIMScheduler:
    """DDIM with velocity prediction and zero terminal SNR, so that dark and bright images can be drawn."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip


def new_base(p: BaseParams, autoencoder: Path, clip: Path) -> dict[str, Any]:
    """The parts of a base model under diffusers' names, with a fresh denoiser or that of `p.start`."""
    if p.widths is None or p.heads is None:
        return continued(load_base(str(p.start)), p)
    vae: Any = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=torch.float32)
    text = load_clip(CLIPTextModel, str(clip), "--clip")
    side = latent_side(vae, p)
    denoiser = new_denoiser(p.widths, p.heads, vae.config["latent_channels"], side, text.config.hidden_size)
    return {"vae": vae.eval().requires_grad_(False), "text_encoder": text.eval(), "unet": denoiser,
            "tokenizer": AutoTokenizer.from_pretrained(clip), "scheduler": new_scheduler()}  # fmt: skip


def continued(parts: dict[str, Any], p: BaseParams) -> dict[str, Any]:
    """A trained base model, set to another photo size, its autoencoder frozen."""
    parts["unet"].register_to_config(sample_size=latent_side(parts["vae"], p))
    parts["vae"].eval().requires_grad_(False)
    return parts


def latent_side(vae: AutoencoderKL, p: BaseParams) -> int:
    """Side of the latents."""
    return p.size // 2 ** (len(vae.config["block_out_channels"]) - 1)


def start_digests(p: BaseParams) -> list[str]:
    """Digests of the weights of `p.start`; empty for a fresh denoiser."""
    folder = BASE if p.start == "mini" else Path(p.start or "")
    return [hash_of(file.read_bytes()) for file in sorted(folder.glob("*/*.safetensors"))] if p.start else []


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n c h w"]:
    """Scaled latents, sampled from the posterior, of images in [-1, 1]."""
    with autocast(images.device.type):
        return posterior(vae, images).sample() * vae.config["scaling_factor"]


def velocity_errors(
    denoiser: Any, schedule: Any, text: Float[Tensor, "n length width"], latents: Float[Tensor, "n c h w"],
    noise: Noise,
) -> Float[Tensor, " n"]:  # fmt: skip
    """Mean squared error of the predicted velocity, per image."""
    with autocast(latents.device.type):
        output = denoiser(add_noise(schedule, latents, noise), noise.timesteps, text, return_dict=False)[0]
    return (output.float() - training_target(schedule, latents, noise)).square().mean((1, 2, 3))


def save(parts: dict[str, Any], out: Path) -> None:
    """Save each part to its own folder, weights in half precision."""
    for name in ("unet", "text_encoder", "vae"):
        save_half_precision(parts[name], out / name)
    for name in ("tokenizer", "scheduler"):
        parts[name].save_pretrained(out / name)
