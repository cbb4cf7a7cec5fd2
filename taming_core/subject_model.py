"""The model that is trained: object encoder, text encoder and denoiser, around a frozen autoencoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel

from taming_core.conditions import OBJECT, token_ids
from taming_core.contexts import Part, Told, denoise, holes_in, parts_of, reference_features, reference_part
from taming_core.errors import TamingError
from taming_core.noise import schedule_like
from taming_core.object_encoder import POOLED, ObjectEncoder, embed
from taming_core.pretrained import towers
from taming_core.seeds import seed_for
from taming_core.train_params import TrainParams

Parameters = dict[str, nn.Parameter]


@dataclass(frozen=True)
class SubjectModel:
    """The parts of a pipeline that training needs."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    denoiser: UNet2DConditionModel
    object_encoder: ObjectEncoder
    schedule: DDPMScheduler
    placeholder: int  # the token id of `<object>`
    silence: Int[Tensor, "1 length"]  # token ids of the empty prompt


class Prediction(NamedTuple):
    """What the denoiser says."""

    said: Float[Tensor, "batch channels rows columns"]
    shares: list[Float[Tensor, "shown pixels"]]  # of attention that goes to the object, per layer; see `predict`


def subject_model(components: Mapping[str, Any]) -> SubjectModel:
    """The model of a pipeline's `components`; it shares their weights.

    Raises:
        TamingError: the pipeline's scheduler has no noise schedule.
    """
    c = components
    silence, placeholder = token_ids(c["tokenizer"], [""]), c["tokenizer"].convert_tokens_to_ids(OBJECT)
    schedule = schedule_like(c["scheduler"])
    return SubjectModel(
        c["vae"], c["text_encoder"], c["unet"], c["object_encoder"], schedule, placeholder,
        silence.to(c["text_encoder"].device),
    )  # fmt: skip


def rates(p: TrainParams) -> dict[str, float]:
    """The share of the learning rate that each part of the model trains with; parts that are frozen are left out."""
    shares = {"object_encoder": 1.0, "denoiser": p.denoiser_rate, "text_encoder": p.text_encoder_rate}
    return {part: share for part, share in shares.items() if share > 0}


def unfreeze(model: SubjectModel, p: TrainParams) -> dict[str, Parameters]:
    """Freeze all, then unfreeze what trains, and return it by part and name."""
    for part in (model.vae, model.text_encoder, model.denoiser, model.object_encoder):
        part.requires_grad_(False).eval()  # nothing random is saved, so dropout stays off
    for part in rates(p):
        for name, weight in getattr(model, part).named_parameters():
            weight.requires_grad_(part != "denoiser" or p.tune == "whole" or "lora_" in name)
    freeze_tower(model.object_encoder, None if p.encoder is None else p.encoder.tower_blocks)
    return {
        part: {n: w for n, w in getattr(model, part).named_parameters() if w.requires_grad} for part in rates(p)
    }  # fmt: skip


def freeze_tower(encoder: ObjectEncoder, blocks: int | None) -> None:
    """Freeze what is below the last `blocks` of the tower (None: nothing), and what no projector reads.

    Raises:
        TamingError: the tower has fewer blocks.
    """
    if encoder.config["tower"] is None:
        return
    tower, layers = encoder.vision, towers.blocks(encoder.vision)
    if blocks is not None and blocks > len(layers):
        raise TamingError(f"train.encoder.tower_blocks is {blocks}, but the tower has {len(layers)}. Set it lower.")
    if blocks is not None:
        above = [n for n, _ in tower.named_children() if n not in ("embeddings", "pre_layrnorm", "encoder")]
        tower.requires_grad_(False)
        for module in [*layers[len(layers) - blocks :], *(getattr(tower, n) for n in above if blocks)]:
            module.requires_grad_(True)
    for weight in towers.unread(tower, encoder.config["projector"] in POOLED):
        weight.requires_grad_(False)


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
    subject: Float[Tensor, "batch references 3 size size"],
    present: Bool[Tensor, " batch"],
    watch: bool = False,
) -> Prediction:
    """What the denoiser says of noised latents, told the caption, and the subject where it is present.

    With `watch` it also tells the share of attention, in [0, 1], that each pixel gives to the object's tokens, one
    tensor per cross-attention layer, of the samples with an object in their order.
    """
    text = model.text_encoder(input_ids=tokens).last_hidden_state
    objects = None
    if bool(present.any()):
        shown = subject[present]
        found = embed(model.object_encoder, model.vae, shown.flatten(0, 1))
        objects = found.view(len(shown), 1, -1, found.shape[-1])  # one object, the tokens of all its photos
    told = Told(text, holes_in(tokens, model.placeholder, 1), present, objects)
    shares = list[Tensor]() if watch else None
    said = denoise(model.denoiser, latents, timesteps, parts(model, told, timesteps), shares)
    return Prediction(said, shares or [])


def parts(model: SubjectModel, told: Told, timesteps: Int[Tensor, " batch"]) -> list[Part]:
    """What the denoiser attends to, whatever the design."""
    injection = model.object_encoder.config["injection"]
    if injection != "reference":
        return parts_of(told, injection)
    if told.objects is None:
        return [reference_part(told, None)]
    with torch.no_grad():
        silence = model.text_encoder(input_ids=model.silence).last_hidden_state
    times = timesteps[told.present]
    noised = noised_subjects(model.schedule, told.objects, model.object_encoder.config["tokens"], times)
    return [reference_part(told, reference_features(model.denoiser, noised, times, silence))]


def noised_subjects(
    schedule: DDPMScheduler,
    objects: Float[Tensor, "shown count tokens channels"],
    pixels: int,
    timesteps: Int[Tensor, " shown"],
) -> Float[Tensor, "shown references channels rows columns"]:
    """The subjects' own latents, of so many `pixels` each, as noisy as the image is.

    The noise is the same for all, so that it says nothing, and an image does not depend on its batch.
    """
    side = math.isqrt(pixels)
    clean = objects.flatten(1, 2).unflatten(1, (-1, side, side)).permute(0, 1, 4, 2, 3)
    generator = torch.Generator().manual_seed(seed_for(0, "reference", 0))
    noise = torch.randn(clean.shape[2:], generator=generator).to(clean).expand_as(clean)
    times: Any = timesteps.repeat_interleave(clean.shape[1])
    noised: Any = schedule.add_noise(clean.flatten(0, 1), noise.flatten(0, 1), times)  # pyright: ignore[reportArgumentType]
    return noised.unflatten(0, clean.shape[:2])
