"""The training objective of a batch: loss terms and sample weights (docs/explanation/method.md section 5)."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.model import diffusion
from taming_core.model.conditioning import indices_of
from taming_core.model.inputs import Batch
from taming_core.model.subject_model import SubjectModel, encode_images, predict, sample_latents
from taming_core.params.train import TrainParams
from taming_core.training import losses
from taming_core.training.gradient_checkpointing import decode

IdentityNetwork = Callable[[Tensor], Tensor]
T = TypeVar("T", float, Tensor)


@dataclass(frozen=True)
class SampleWeights:
    """Weights of the samples of a batch in each loss term, divided by their number so that micro-batches add up."""

    denoising: Float[Tensor, " batch"]
    identity: Float[Tensor, " batch"]
    localization: Float[Tensor, " batch"]

    def slice(self, rows: slice) -> "SampleWeights":
        """The weights of some rows."""
        return SampleWeights(self.denoising[rows], self.identity[rows], self.localization[rows])


@dataclass(frozen=True)
class LossTerms:
    """The loss terms, each a weighted sum over samples."""

    denoising: Float[Tensor, ""]
    identity: Float[Tensor, ""]
    localization: Float[Tensor, ""]


def total_loss(denoising: T, identity: T, localization: T, p: TrainParams) -> T:
    """The weighted sum of the loss terms."""
    return denoising + p.identity_weight * identity + p.localization_weight * localization


def compute_sample_weights(
    model: SubjectModel,
    identity: IdentityNetwork | None,
    object_counts: Int[Tensor, " batch"],
    timesteps: Tensor,
    p: TrainParams,
) -> SampleWeights:
    """The sample weights, on the CPU: all samples count in the denoising loss, those with an object in the others.

    A weight depends on the other samples by their number alone; so a noisy sample counts little in any batch. The
    identity loss counts samples with one object: the square around it might show a part of another one.
    """
    present, single = object_counts > 0, object_counts == 1
    signal = diffusion.alpha_bar(model.schedule, timesteps).flatten()
    schedule = model.schedule
    weights = losses.snr_weights(
        signal, diffusion.prediction_type(schedule), p.min_snr, diffusion.has_zero_terminal_snr(schedule)
    )
    zeros = torch.zeros_like(signal)
    identity_weights = losses.identity_weights(signal, timesteps, single, p.identity_max_timestep or 0)
    localization_weights = present.float() if p.localization_weight > 0 else zeros
    return SampleWeights(
        denoising=weights / len(signal),
        identity=zeros if identity is None else identity_weights / single.sum().clamp(min=1),
        localization=localization_weights / localization_weights.sum().clamp(min=1),
    )


def compute_loss_terms(
    model: SubjectModel,
    identity: IdentityNetwork | None,
    batch: Batch,
    noise: diffusion.Noise,
    sample_weights: SampleWeights,
    p: TrainParams,
    force_encoder: bool = False,
) -> LossTerms:
    """The loss terms of a batch.

    Args:
        model: the model.
        identity: F; None without identity loss.
        batch: on the device, except for `cached` on the CPU, to be read without synchronization.
        noise: on the device.
        sample_weights: on the CPU.
        p: the params.
        force_encoder: see `predict`.
    """
    device = noise.diffusion.device
    device_weights, object_rows = weights_on_device(sample_weights, device), indices_of(batch.present, device)
    latents = latents_of(model, batch, noise)
    noised = diffusion.add_noise(model.schedule, latents, noise)
    with_attention = p.localization_weight > 0 and bool(sample_weights.localization.any())
    prediction = predict(model, noised, noise.timesteps, batch, with_attention, force_encoder, noise.guidance)
    output, target = prediction.output.float(), diffusion.training_target(model.schedule, latents, noise)
    pixel_weights = losses.mask_weights(batch.mask, p.mask_weight, (latents.shape[2], latents.shape[3]))
    return LossTerms(
        denoising=(losses.denoising_loss(output, target, pixel_weights) * device_weights.denoising).sum(),
        identity=identity_sum(
            model,
            identity,
            noised,
            output,
            noise.timesteps,
            batch,
            device_weights.identity,
            indices_of(sample_weights.identity > 0, device),
        ),
        localization=localization_sum(prediction.attention_shares, batch, device_weights.localization, object_rows),
    )


def weights_on_device(sample_weights: SampleWeights, device: torch.device) -> SampleWeights:
    """The sample weights on the device."""
    return SampleWeights(
        **{f.name: getattr(sample_weights, f.name).to(device, non_blocking=True) for f in fields(SampleWeights)}
    )


def latents_of(
    model: SubjectModel, batch: Batch, noise: diffusion.Noise
) -> Float[Tensor, "batch channels rows columns"]:
    """The latents of the targets, sampled from the autoencoder's posterior, which may be cached."""
    if batch.latent_mean is not None and batch.latent_std is not None:
        return sample_latents(model, batch.latent_mean, batch.latent_std, noise.posterior)
    if batch.target is None:
        raise ValueError("a batch has neither targets nor their latents")
    return encode_images(model, batch.target, noise.posterior)


def localization_sum(
    shares: list[Float[Tensor, "objects _"]],
    batch: Batch,
    sample_weights: Float[Tensor, " batch"],
    object_rows: Int[Tensor, " objects"],
) -> Float[Tensor, ""]:
    """The weighted sum of the localization losses, over the samples with an object."""
    if not shares:
        return sample_weights.new_zeros(())
    return (losses.localization_loss(shares, batch.mask[object_rows]) * sample_weights[object_rows]).sum()


def identity_sum(
    model: SubjectModel,
    identity: IdentityNetwork | None,
    noised: Float[Tensor, "batch channels rows columns"],
    output: Float[Tensor, "batch channels rows columns"],
    timesteps: Tensor,
    batch: Batch,
    sample_weights: Float[Tensor, " batch"],
    some: Int[Tensor, " some"],
) -> Float[Tensor, ""]:
    """The weighted sum of the identity losses over the samples `some`; only these are decoded."""
    if identity is None or batch.view is None or batch.frame is None or not len(some):
        return sample_weights.new_zeros(())
    estimate = diffusion.estimate_clean(model.schedule, noised[some], output[some], timesteps[some])
    images = decode(model.family, estimate)
    features = identity(losses.object_crops(images, batch.mask[some], batch.frame[some], batch.view.shape[-1]))
    with torch.no_grad():
        target_features = identity(batch.view[some])
    return (losses.identity_loss(features, target_features) * sample_weights[some]).sum()
