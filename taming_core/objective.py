"""What a batch is asked for: the parts of the loss and how much each sample counts (docs/method.md section 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from taming_core import loss, noise
from taming_core.batches import Batch
from taming_core.subject_model import SubjectModel, encode_images, predict
from taming_core.train_params import TrainParams

Identity = Callable[[Tensor], Tensor]
T = TypeVar("T", float, Tensor)


@dataclass(frozen=True)
class Counts:
    """How much each sample of a batch counts in each loss, so that micro-batches add up to the batch."""

    denoising: Float[Tensor, " batch"]
    identity: Float[Tensor, " batch"]
    localization: Float[Tensor, " batch"]


@dataclass(frozen=True)
class Terms:
    """The parts of the loss, each summed over samples as they count."""

    denoising: Float[Tensor, ""]
    identity: Float[Tensor, ""]
    localization: Float[Tensor, ""]


def total(denoising: T, identity: T, localization: T, p: TrainParams) -> T:
    """The loss that is brought down, of its parts."""
    return denoising + p.identity_weight * identity + p.localization_weight * localization


def counts_of(
    model: SubjectModel, identity: Identity | None, batch: Batch, timesteps: Tensor, p: TrainParams
) -> Counts:
    """How much each sample counts: all in the denoising loss, samples with an object in the other two."""
    signal = noise.alpha_bar(model.schedule, timesteps).flatten()
    weights = loss.snr_weights(signal, noise.prediction_of(model.schedule), p.min_snr)
    nothing = torch.zeros_like(signal)
    clear = loss.identity_weights(signal, timesteps, batch.present, p.identity_max_timestep or 0)
    shown = batch.present.float() if p.localization_weight > 0 else nothing
    return Counts(
        denoising=weights / len(signal),
        identity=nothing if identity is None else clear / clear.sum().clamp(min=1e-6),
        localization=shown / shown.sum().clamp(min=1),
    )


def terms_of(
    model: SubjectModel, identity: Identity | None, batch: Batch, drawn: noise.Noise, counts: Counts, p: TrainParams
) -> Terms:
    """The terms of a batch that is on the device as a whole."""
    latents = encode_images(model, batch.target, drawn.encoding)
    noised, watch = noise.noised(model.schedule, latents, drawn), bool(counts.localization.any())
    found = predict(model, noised, drawn.timesteps, batch.tokens, batch.subject, batch.present, watch)
    said, target = found.said.float(), noise.target_of(model.schedule, latents, drawn)
    weights = loss.mask_weights(batch.mask, p.mask_weight, (latents.shape[2], latents.shape[3]))
    return Terms(
        denoising=(loss.denoising_loss(said, target, weights) * counts.denoising).sum(),
        identity=identity_sum(model, identity, noised, said, drawn.timesteps, batch, counts.identity),
        localization=localization_sum(found.shares, batch, counts.localization),
    )


def localization_sum(
    shares: list[Float[Tensor, "shown pixels"]], batch: Batch, counts: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """The localization losses of the samples that show an object, as they count."""
    if not shares:
        return counts.new_zeros(())
    return (loss.localization_loss(shares, batch.mask[batch.present]) * counts[batch.present]).sum()


def identity_sum(
    model: SubjectModel,
    identity: Identity | None,
    noised: Float[Tensor, "batch channels rows columns"],
    said: Float[Tensor, "batch channels rows columns"],
    timesteps: Tensor,
    batch: Batch,
    counts: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """The identity losses of the samples that count, weighted and summed; only those are decoded."""
    some = counts > 0
    if identity is None or not bool(some.any()):
        return counts.new_zeros(())
    estimate = noise.clean_estimate(model.schedule, noised[some], said[some], timesteps[some])
    images = model.family.decode(estimate)
    found = identity(loss.object_crops(images, batch.mask[some], batch.frame[some], batch.view.shape[-1]))
    with torch.no_grad():
        wanted = identity(batch.view[some])
    return (loss.identity_loss(found, wanted) * counts[some]).sum()
