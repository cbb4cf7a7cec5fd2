"""The model that is trained: object encoder, text encoder and denoiser, around a frozen autoencoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from taming_core.bases.families import family_of
from taming_core.bases.family import Family, Text, vae_precision
from taming_core.errors import TamingError
from taming_core.model import towers
from taming_core.model.attention import ip_layers
from taming_core.model.conditioning import (
    Conditioning,
    ConditioningGroup,
    denoise,
    find_placeholders,
    group_by_design,
    indices_of,
    reference_features,
    reference_group,
)
from taming_core.model.diffusion import Schedule, alpha_bar, noise_schedule_of
from taming_core.model.object_encoder import POOLED, ObjectEncoder, encode_subjects, frozen_zero_biases
from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for

Parameters = dict[str, nn.Parameter]

TRAINING_GUIDANCE = 1.0  # what a denoiser that was distilled to read its guidance is told: the data as they are


@dataclass(frozen=True)
class SubjectModel:
    """A text-to-image model and the object encoder that tames it."""

    family: Family
    object_encoder: ObjectEncoder
    schedule: Schedule

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network by the name that training gives it."""
        return {**self.family.networks, "object_encoder": self.object_encoder}


class Prediction(NamedTuple):
    """What the denoiser says."""

    output: Float[Tensor, "batch channels rows columns"]
    attention_shares: list[
        Float[Tensor, "shown pixels"]
    ]  # of attention that goes to the object, per layer; see `predict`


def subject_model(components: Mapping[str, Any]) -> SubjectModel:
    """The model of a pipeline's `components`; it shares their weights.

    Raises:
        TamingError: the pipeline is of no family that is known, or its scheduler has no noise schedule.
    """
    return SubjectModel(family_of(components), components["object_encoder"], noise_schedule_of(components["scheduler"]))


def learning_rate_shares(model: SubjectModel, p: TrainParams) -> dict[str, float]:
    """The share of the learning rate that each part of the model trains with; parts that are frozen are left out."""
    text_encoders = dict.fromkeys(model.family.text_encoders, p.text_encoder_rate)
    shares = {"object_encoder": 1.0, "denoiser": p.denoiser_rate, **text_encoders}
    return {part: share for part, share in shares.items() if share > 0}


def unfreeze(model: SubjectModel, p: TrainParams) -> dict[str, Parameters]:
    """Freeze all, then unfreeze what trains, and return it by part and name."""
    for part in model.networks.values():
        part.requires_grad_(False).eval()  # nothing random is saved, so dropout stays off
    training = {name: model.networks[name] for name in learning_rate_shares(model, p)}
    for part, module in training.items():
        for name, weight in module.named_parameters():
            weight.requires_grad_(part != "denoiser" or p.tune == "whole" or "lora_" in name)
    freeze_tower(model.object_encoder, None if p.encoder is None else p.encoder.tower_blocks)
    return {part: {n: w for n, w in m.named_parameters() if w.requires_grad} for part, m in training.items()}


def freeze_tower(encoder: ObjectEncoder, blocks: int | None) -> None:
    """Freeze what is below the last `blocks` of the tower (None: nothing), and what the projector does not read.

    Blocks count from the last one that the projector reads. Biases that must stay zero are frozen too.

    Raises:
        TamingError: the projector reads fewer blocks.
    """
    if encoder.config["tower"] is None:
        return
    tower, layers = encoder.vision, towers.blocks_read(encoder.vision, encoder.config["projector"])
    if blocks is not None and blocks > len(layers):
        raise TamingError(f"train.encoder.tower_blocks is {blocks}, but the tower has {len(layers)} that are read. "
                          "Set it lower.")  # fmt: skip
    if blocks is not None:
        above = [n for n, _ in tower.named_children() if n not in towers.BELOW_LAST_BLOCK]
        tower.requires_grad_(False)
        for module in [*layers[len(layers) - blocks :], *(getattr(tower, n) for n in above if blocks)]:
            module.requires_grad_(True)
    projector = encoder.config["projector"]
    for weight in (*towers.unused_weights(tower, projector, projector in POOLED), *frozen_zero_biases(encoder)):
        weight.requires_grad_(False)


def require_size(model: SubjectModel, size: int) -> None:
    """Refuse pictures that the model cannot halve as often as it does, or has no places for.

    Raises:
        TamingError: naming the sizes that fit.
    """
    multiple = model.family.size_multiple
    if size % multiple:
        raise TamingError(f"The rows' images are {size} pixels wide or high, which this base model cannot take. Set "
                          f"materialize.size and all of materialize.buckets to a multiple of {multiple}.")  # fmt: skip
    limit = model.family.max_size
    if limit is not None and size > limit:
        raise TamingError(f"The rows' images are {size} pixels wide or high, and this base takes {limit} at most. "
                          "Lower materialize.size and materialize.buckets.")  # fmt: skip


def encode_images(
    model: SubjectModel,
    images: Float[Tensor, "batch 3 height width"],
    noise: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Latents z_0: a sample from the autoencoder's posterior, by the noise that is given."""
    return sample_latents(model, *latent_posterior(model, images), noise)


def latent_posterior(model: SubjectModel, images: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, C, h, w) of what the autoencoder makes of images in [-1, 1]."""
    with torch.no_grad(), vae_precision(model.family.vae, images.device):
        found: Any = model.family.vae.encode(images.to(model.family.vae.dtype)).latent_dist
        return found.mean, found.std


def sample_latents(
    model: SubjectModel,
    mean: Float[Tensor, "batch channels rows columns"],
    std: Float[Tensor, "batch channels rows columns"],
    noise: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Latents z_0 from a posterior, by the noise that is given."""
    # In one layout, whether the autoencoder or a cache says the posterior: sums are rounded as numbers lie in memory.
    return model.family.scale_latents((mean + std * noise).float()).contiguous()


def predict(
    model: SubjectModel,
    latents: Float[Tensor, "batch channels rows columns"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
    tokens: Int[Tensor, "batch length"],
    subject: Float[Tensor, "batch references 3 size size"],
    present: Bool[Tensor, " batch"],
    with_attention: bool = False,
    force_encoder: bool = False,
    text: Text | None = None,
    features: Float[Tensor, "batch references *states features"] | None = None,
    cached: Bool[Tensor, "batch references"] | None = None,
) -> Prediction:
    """What the denoiser says of noised latents, told the caption, and the subject where it is present.

    With `watch` it also tells the share of attention, in [0, 1], that each pixel gives to the object's tokens, one
    tensor per cross-attention layer, of the samples with an object in their order. `present` is on the CPU. With
    `always` the encoder works even where no sample has an object, as in the processes beside this one.
    What a cache knows is not computed: the `text` of the tokens, and of the photos that are `known` the tower's
    `features`.
    """
    family, objects = model.family, None
    if force_encoder or bool(present.any()):
        no_object = not bool(present.any())
        encoded = torch.arange(len(present)) == 0 if no_object else present  # no tower looks at nothing
        chosen = indices_of(encoded, subject.device)
        subjects = subject[chosen]
        cached_features = (
            () if features is None or cached is None else (features[chosen].flatten(0, 1), cached[encoded].flatten())
        )
        found = encode_subjects(model.object_encoder, family, subjects.flatten(0, 1), *cached_features)
        objects = found.view(
            len(subjects), 1, subjects.shape[1] * found.shape[1], found.shape[2]
        )  # all its photos' tokens
        objects = objects[:0] if no_object else objects
    positions = find_placeholders(family.split_token_ids(tokens)[0], family.placeholder, 1)
    conditioning = Conditioning(family.text(tokens) if text is None else text, positions, present, objects)
    shares = list[Tensor]() if with_attention else None
    guidance = TRAINING_GUIDANCE if family.reads_guidance else None
    output = denoise(family, latents, timesteps, conditioning_groups(model, conditioning, timesteps), shares, guidance)
    return Prediction(output, shares or [])


def conditioning_groups(model: SubjectModel, conditioning: Conditioning, timesteps: Tensor) -> list[ConditioningGroup]:
    """What the denoiser attends to, whatever the design."""
    family, injection = model.family, model.object_encoder.config["injection"]
    if injection != "reference":
        return group_by_design(conditioning, injection, ip_layers(family.denoiser) if injection == "decoupled" else ())
    if conditioning.object_embeds is None:
        return [reference_group(conditioning, None)]
    with torch.no_grad():
        empty_prompt = family.text(family.token_ids([""]).to(timesteps.device, non_blocking=True))
    times = timesteps[indices_of(conditioning.present, timesteps.device)]
    noised = noise_subjects(model.schedule, conditioning.object_embeds, model.object_encoder.config["tokens"], times)
    return [reference_group(conditioning, reference_features(family, noised, times, empty_prompt))]


def noise_subjects(
    schedule: Schedule,
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
    noise = torch.randn(clean.shape[2:], generator=generator).to(clean, non_blocking=True).expand_as(clean)
    times = timesteps.repeat_interleave(clean.shape[1])
    signal = alpha_bar(schedule, times).to(clean.dtype)
    noised = signal.sqrt() * clean.flatten(0, 1) + (1 - signal).sqrt() * noise.flatten(0, 1)
    return noised.unflatten(0, clean.shape[:2])
