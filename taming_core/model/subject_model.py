"""The model that is trained: object encoder, text encoder and denoiser, around a frozen autoencoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from taming_core.bases.families import family_of
from taming_core.bases.family import Family, Text
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
    placeholder_states,
    reference_features,
    reference_group,
    with_collage,
)
from taming_core.model.diffusion import Schedule, alpha_bar, noise_schedule_of
from taming_core.model.inputs import Batch
from taming_core.model.object_encoder import (
    POOLED,
    ObjectEncoder,
    encode_subjects,
    frozen_zero_biases,
    latents_side,
    split_collage,
)
from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for

Parameters = dict[str, nn.Parameter]


@dataclass(frozen=True)
class SubjectModel:
    """A text-to-image model with its object encoder."""

    family: Family
    object_encoder: ObjectEncoder
    schedule: Schedule
    digests: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # of weights as their files hold them, by network

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network by its name in training."""
        return {**self.family.networks, "object_encoder": self.object_encoder}


class Prediction(NamedTuple):
    """The denoiser output."""

    output: Float[Tensor, "batch channels rows columns"]
    attention_shares: list[Float[Tensor, "objects _"]]  # share of each pixel's attention to the object, one per layer


def subject_model(components: Mapping[str, Any], digests: Mapping[str, str] | None = None) -> SubjectModel:
    """The model of a pipeline's `components`; it shares their weights, and has the `digests` of those from files.

    Raises:
        TamingError: the family is not supported, or the scheduler has no noise schedule.
    """
    schedule = noise_schedule_of(components["scheduler"])
    return SubjectModel(family_of(components), components["object_encoder"], schedule, digests or {})


def learning_rate_shares(model: SubjectModel, p: TrainParams) -> dict[str, float]:
    """The factor of the learning rate of each network that trains."""
    text_encoders = dict.fromkeys(model.family.trainable_text_encoders, p.text_encoder_rate)
    shares = {"object_encoder": 1.0, "denoiser": p.denoiser_rate, **text_encoders}
    return {part: share for part, share in shares.items() if share > 0}


def unfreeze(model: SubjectModel, p: TrainParams) -> dict[str, Parameters]:
    """Freeze all weights, then unfreeze those that train, and return them by network and name."""
    for part in model.networks.values():
        part.requires_grad_(False).eval()  # nothing random is saved, so dropout stays off
    training = {name: model.networks[name] for name in learning_rate_shares(model, p)}
    for part, module in training.items():
        for name, weight in module.named_parameters():
            weight.requires_grad_(part != "denoiser" or p.tune == "whole" or "lora_" in name)
    freeze_tower(model.object_encoder, None if p.encoder is None else p.encoder.tower_blocks)
    return {part: {n: w for n, w in m.named_parameters() if w.requires_grad} for part, m in training.items()}


def freeze_tower(encoder: ObjectEncoder, blocks: int | None) -> None:
    """Freeze the tower below its last `blocks` (None: train all of it), and weights that the projector does not use.

    Blocks are counted back from the last one that the projector uses. Biases that must stay zero are frozen too.

    Raises:
        TamingError: the projector uses fewer blocks.
    """
    if encoder.config["tower"] is None:
        return
    tower, layers = encoder.vision, towers.blocks_read(encoder.vision, encoder.config["projector"])
    if blocks is not None and blocks > len(layers):
        raise TamingError(f"train.encoder.tower_blocks is {blocks}, but the projector uses {len(layers)} blocks of the "
                          "tower. Set it lower.")  # fmt: skip
    if blocks is not None:
        above = [n for n, _ in tower.named_children() if n not in towers.BELOW_LAST_BLOCK]
        tower.requires_grad_(False)
        for module in [*layers[len(layers) - blocks :], *(getattr(tower, n) for n in above if blocks)]:
            module.requires_grad_(True)
    projector = encoder.config["projector"]
    for weight in (*towers.unused_weights(tower, projector, projector in POOLED), *frozen_zero_biases(encoder)):
        weight.requires_grad_(False)


def require_size(model: SubjectModel, size: int) -> None:
    """Require an image side in pixels that the model supports.

    Raises:
        TamingError: it is no multiple of the model's downsampling, or too large; the message names sizes that fit.
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
    """Latents z_0 of images in [-1, 1]: a sample from the autoencoder's posterior with the given noise."""
    return sample_latents(model, *latent_posterior(model, images), noise)


def latent_posterior(model: SubjectModel, images: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, C, h, w) of the autoencoder's posterior of images in [-1, 1]."""
    with torch.no_grad():
        posterior = model.family.encode(images)
        return posterior.mean, posterior.std


def sample_latents(
    model: SubjectModel,
    mean: Float[Tensor, "batch channels rows columns"],
    std: Float[Tensor, "batch channels rows columns"],
    noise: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Latents z_0: a sample from a posterior with the given noise."""
    # Contiguous, whether the posterior comes from the autoencoder or a cache: the memory layout affects rounding.
    return model.family.scale_latents((mean + std * noise).float()).contiguous()


def predict(
    model: SubjectModel,
    latents: Float[Tensor, "batch channels rows columns"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
    batch: Batch,
    with_attention: bool = False,
    force_encoder: bool = False,
    guidance: Float[Tensor, " batch"] | None = None,
) -> Prediction:
    """The denoiser's output for noised latents, conditioned on the captions and subjects of a batch.

    Args:
        model: the model.
        latents: z_t.
        timesteps: t, on the scale of the noise schedule.
        batch: on the device of the model; `cached` on the CPU.
        with_attention: also return the share of attention, in [0, 1], that each pixel gives to the object tokens.
        force_encoder: run the object encoder even where no sample has an object, as other processes do at this moment.
        guidance: the scale for a guidance-distilled denoiser; None for any other.
    """
    family = model.family
    objects = batch_object_embeds(model, batch, force_encoder)
    text = family.text(batch.tokens) if batch.text is None else batch.text
    groups = [
        replace(group, rows=rows[group.rows])
        for rows, part in split_by_count(model, text, batch, objects)
        for group in conditioning_groups(model, part, timesteps[rows], (latents.shape[2], latents.shape[3]))
    ]
    shares = list[Tensor]() if with_attention else None
    output = denoise(family, latents, timesteps, groups, shares, guidance, batch.sizes)
    return Prediction(output, shares or [])


def split_by_count(
    model: SubjectModel, text: Text, batch: Batch, objects: Float[Tensor, "objects tokens width"] | None
) -> list[tuple[Int[Tensor, " part"], Conditioning]]:
    """The conditioning of a batch in parts whose samples have equally many objects, with the rows of each part.

    Samples without an object are in the first part.
    """
    family, counts, device = model.family, batch.object_counts, text.states.device
    ids, starts = family.state_ids(batch.tokens), (0, *accumulate(counts))
    parts: list[tuple[Tensor, Conditioning]] = []
    for count in sorted({*counts} - {0}) or [1]:
        chosen = [i for i, n in enumerate(counts) if n == count or (n == 0 and not parts)]
        own = [starts[i] + k for i in chosen for k in range(counts[i])]
        rows, numbers = (torch.tensor(n, dtype=torch.long).to(device, non_blocking=True) for n in (chosen, own))
        positions = find_placeholders(ids[rows], family.placeholder, count)
        states = placeholder_states(text.states[rows], ids[rows], family.placeholder, positions)
        embeds = None if objects is None else objects[numbers].view(-1, count, *objects.shape[1:])
        placed = torch.tensor([i for i in chosen if counts[i]], dtype=torch.long).to(device, non_blocking=True)
        boxes = None if batch.boxes is None else batch.boxes[placed][:, :count]
        part = text.map(lambda x, r=rows: x[r]), positions, batch.present[chosen], embeds, states, boxes
        parts.append((rows, Conditioning(*part)))
    return parts


def batch_object_embeds(
    model: SubjectModel, batch: Batch, force_encoder: bool
) -> Float[Tensor, "objects tokens width"] | None:
    """Object embeddings of the objects of all samples, with the tokens of all their photos; None without any."""
    no_object = not any(batch.object_counts)
    if no_object and not force_encoder:
        return None
    most = batch.subject.shape[1]
    numbers = [i * most + k for i, count in enumerate(batch.object_counts) for k in range(count)]
    chosen = torch.tensor(numbers or [0])  # a tower needs one photo at least
    rows = chosen.to(batch.subject.device, non_blocking=True)
    subjects = batch.subject.flatten(0, 1)[rows]
    features = cached = None
    if batch.tower_features is not None and batch.cached is not None:
        features = batch.tower_features.flatten(0, 1)[rows].flatten(0, 1)
        cached = batch.cached.flatten(0, 1)[chosen].flatten()
    embeds = encode_subjects(model.object_encoder, model.family, subjects.flatten(0, 1), features, cached)
    embeds = embeds.view(len(subjects), subjects.shape[1] * embeds.shape[1], embeds.shape[2])
    return embeds[:0] if no_object else embeds


def conditioning_groups(
    model: SubjectModel, conditioning: Conditioning, timesteps: Tensor, size: tuple[int, int]
) -> list[ConditioningGroup]:
    """The conditioning groups of a batch for the model's network design.

    `size` is that of the image's latents, rows and columns.
    """
    family, injection = model.family, model.object_encoder.config["injection"]
    if injection != "reference":
        conditioning, latents = without_collage(model, conditioning)
        conditioning = bind_objects(model.object_encoder, conditioning)
        layers = ip_layers(family.denoiser) if injection == "decoupled" else ()
        return with_collage(group_by_design(conditioning, injection, layers), conditioning, latents, size)
    if conditioning.object_embeds is None:
        return [reference_group(conditioning, None)]
    with torch.no_grad():
        empty_prompt = family.text(family.token_ids([""]).to(timesteps.device, non_blocking=True))
    times = timesteps[indices_of(conditioning.present, timesteps.device)]
    noised = noise_subjects(model.schedule, conditioning.object_embeds, model.object_encoder.config["tokens"], times)
    features = reference_features(family, noised, times, empty_prompt)
    if (states := object_states(conditioning)) is not None:
        features = {name: model.object_encoder.bind(name, states, x) for name, x in features.items()}
    return [reference_group(conditioning, features)]


def without_collage(
    model: SubjectModel, conditioning: Conditioning
) -> tuple[Conditioning, Float[Tensor, "objects count channels side side"] | None]:
    """The conditioning with object tokens alone, and the latents (objects, count, C, side, side) of a collage.

    Without an object the latents are empty; None for an encoder without a collage.
    """
    encoder, family, embeds = model.object_encoder, model.family, conditioning.object_embeds
    if encoder.config["collage"] is None:
        return conditioning, None
    if embeds is None:
        side = latents_side(encoder, family)
        return conditioning, conditioning.text.states.new_zeros(0, 1, family.latent_channels, side, side)
    tokens, latents = split_collage(encoder, family, embeds.flatten(0, 1))
    count = embeds.shape[:2]
    assert latents is not None
    tokens = tokens.view(*count, *tokens.shape[1:])
    return replace(conditioning, object_embeds=tokens), latents.view(*count, *latents.shape[1:])


def bind_objects(encoder: ObjectEncoder, conditioning: Conditioning) -> Conditioning:
    """The conditioning with each object's tokens bound to its `<object>`, if the encoder binds them."""
    embeds, states = conditioning.object_embeds, object_states(conditioning)
    if embeds is None or states is None:
        return conditioning
    bound = encoder.bind("tokens", states, embeds.flatten(1, 2))
    return replace(conditioning, object_embeds=bound.view_as(embeds))


def object_states(conditioning: Conditioning) -> Float[Tensor, "objects count text_width"] | None:
    """The prompt embeddings of each `<object>`, of the samples with an object; None where nothing is bound."""
    states = conditioning.placeholder_states
    return None if states is None else states[indices_of(conditioning.present, states.device)]


def noise_subjects(
    schedule: Schedule,
    objects: Float[Tensor, "objects count tokens channels"],
    pixels: int,
    timesteps: Int[Tensor, " objects"] | Float[Tensor, " objects"],
) -> Float[Tensor, "objects references channels rows columns"]:
    """The latents of the subjects, with `pixels` each, noised to the timestep of their image.

    The noise is the same for all subjects and images, so that it holds no information, and an image does not depend on
    its batch.
    """
    side = math.isqrt(pixels)
    clean = torch.unflatten(objects.flatten(1, 2), 1, (-1, side, side)).permute(0, 1, 4, 2, 3)
    generator = torch.Generator().manual_seed(seed_for(0, "reference", 0))
    noise = torch.randn(clean.shape[2:], generator=generator).to(clean, non_blocking=True).expand_as(clean)
    times = timesteps.repeat_interleave(clean.shape[1])
    signal = alpha_bar(schedule, times).to(clean.dtype)
    noised = signal.sqrt() * clean.flatten(0, 1) + (1 - signal).sqrt() * noise.flatten(0, 1)
    return torch.unflatten(noised, 0, clean.shape[:2])
