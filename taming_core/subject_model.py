"""The model that is trained: object encoder, text encoder and denoiser, around a frozen autoencoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel

from taming_core.attention import contexts, denoise
from taming_core.config import TrainParams
from taming_core.errors import TamingError
from taming_core.noise import schedule_like
from taming_core.object_encoder import ObjectEncoder

Parameters = dict[str, nn.Parameter]


@dataclass(frozen=True)
class SubjectModel:
    """The parts of a pipeline that training needs."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    denoiser: UNet2DConditionModel
    object_encoder: ObjectEncoder
    schedule: DDPMScheduler


def subject_model(components: Mapping[str, Any]) -> SubjectModel:
    """The model of a pipeline's `components`; it shares their weights.

    Raises:
        TamingError: the pipeline's scheduler has no noise schedule.
    """
    c = components
    return SubjectModel(c["vae"], c["text_encoder"], c["unet"], c["object_encoder"], schedule_like(c["scheduler"]))


def rates(p: TrainParams) -> dict[str, float]:
    """The share of the learning rate that each part of the model trains with; parts that are frozen are left out."""
    shares = {"object_encoder": 1.0}
    if p.tune == "whole":
        shares |= {"denoiser": p.denoiser_rate, "text_encoder": p.text_encoder_rate}
    return {part: share for part, share in shares.items() if share > 0}


def unfreeze(model: SubjectModel, p: TrainParams) -> dict[str, Parameters]:
    """Freeze all, then unfreeze what trains, and return it by part and name."""
    for part in (model.vae, model.text_encoder, model.denoiser, model.object_encoder):
        part.requires_grad_(False).eval()  # nothing random is saved, so dropout stays off
    for part in rates(p):
        getattr(model, part).requires_grad_(True)
    freeze_tower(model.object_encoder, None if p.encoder is None else p.encoder.tower_blocks)
    return {
        part: {n: w for n, w in getattr(model, part).named_parameters() if w.requires_grad} for part in rates(p)
    }  # fmt: skip


def freeze_tower(encoder: ObjectEncoder, blocks: int | None) -> None:
    """Freeze what is below the last `blocks` of the tower (None: nothing), and the norm that no projector reads.

    Raises:
        TamingError: the tower has fewer blocks.
    """
    layers = list(encoder.vision.encoder.layers)
    if blocks is not None and blocks > len(layers):
        raise TamingError(f"train.encoder.tower_blocks is {blocks}, but the tower has {len(layers)}. Set it lower.")
    if blocks is not None:
        encoder.vision.requires_grad_(False)
        for layer in layers[len(layers) - blocks :]:
            layer.requires_grad_(True)
    # Only `linear` projects the pooled output, which passes this norm.
    encoder.vision.post_layernorm.requires_grad_(encoder.config["projector"] == "linear" and blocks != 0)


def require_side(model: SubjectModel, side: int) -> None:
    """Refuse pictures that the model cannot halve as often as it does.

    Raises:
        TamingError: naming the sizes that fit.
    """
    levels = len(model.vae.config["block_out_channels"]) + len(model.denoiser.config["block_out_channels"]) - 2
    if side % 2**levels:
        raise TamingError(f"The rows' images are {side} pixels wide, which this base model cannot take. Set "
                          f"materialize.size to a multiple of {2**levels}.")  # fmt: skip


def encode_images(
    model: SubjectModel,
    images: Float[Tensor, "batch 3 height width"],
    noise: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Latents z_0: a sample from the autoencoder's posterior, by the noise that is given."""
    with torch.no_grad():
        posterior: Any = model.vae.encode(images).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        return (posterior.mean + posterior.std * noise).float() * model.vae.config["scaling_factor"]


def decode_latents(
    model: SubjectModel, latents: Float[Tensor, "batch channels rows columns"]
) -> Float[Tensor, "batch 3 height width"]:
    """Images in about [-1, 1]; gradients flow to the latents."""
    return model.vae.decode(latents / model.vae.config["scaling_factor"], return_dict=False)[0]  # pyright: ignore[reportReturnType]


def predict(
    model: SubjectModel,
    latents: Float[Tensor, "batch channels rows columns"],
    timesteps: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch length"],
    subject: Float[Tensor, "batch 3 size size"],
    present: Bool[Tensor, " batch"],
) -> Float[Tensor, "batch channels rows columns"]:
    """What the denoiser says of noised latents, told the caption, and the subject where it is present."""
    text = model.text_encoder(input_ids=tokens).last_hidden_state
    objects = model.object_encoder(subject[present]) if bool(present.any()) else None
    config = model.object_encoder.config
    return denoise(
        model.denoiser, latents, timesteps, contexts(text, objects, present, config["injection"], config["tokens"])
    )
