"""What a batch is asked for: the parts of the loss and how much each sample counts (docs/method.md section 5)."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.model import diffusion
from taming_core.model.conditioning import numbers
from taming_core.model.subject_model import SubjectModel, encode_images, predict, sampled
from taming_core.params.train import TrainParams
from taming_core.training import losses
from taming_core.training.batches import Batch

Identity = Callable[[Tensor], Tensor]
T = TypeVar("T", float, Tensor)


@dataclass(frozen=True)
class Counts:
    """How much each sample of a batch counts in each loss, so that micro-batches add up to the batch; on the CPU."""

    denoising: Float[Tensor, " batch"]
    identity: Float[Tensor, " batch"]
    localization: Float[Tensor, " batch"]

    def some(self, rows: slice) -> "Counts":
        """Those of some rows."""
        return Counts(self.denoising[rows], self.identity[rows], self.localization[rows])


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
    model: SubjectModel, identity: Identity | None, present: Bool[Tensor, " batch"], timesteps: Tensor, p: TrainParams
) -> Counts:
    """How much each sample counts: all in the denoising loss, those with an object (`present`) in the other two."""
    signal = diffusion.alpha_bar(model.schedule, timesteps).flatten()
    weights = losses.snr_weights(signal, diffusion.prediction_of(model.schedule), p.min_snr)
    nothing = torch.zeros_like(signal)
    clear = losses.identity_weights(signal, timesteps, present, p.identity_max_timestep or 0)
    shown = present.float() if p.localization_weight > 0 else nothing
    return Counts(
        denoising=weights / len(signal),
        identity=nothing if identity is None else clear / clear.sum().clamp(min=1e-6),
        localization=shown / shown.sum().clamp(min=1),
    )


def terms_of(
    model: SubjectModel,
    identity: Identity | None,
    batch: Batch,
    drawn: diffusion.Noise,
    counts: Counts,
    p: TrainParams,
    always: bool = False,
) -> Terms:
    """The terms of a batch.

    Batch and noise are on the device. `batch.present` and `counts` are on the CPU, where asking what they hold takes no
    waiting until the device comes to it. For `always` see `predict`.
    """
    device = drawn.diffusion.device
    weigh, shown = counts_on(counts, device), numbers(batch.present, device)
    latents = latents_of(model, batch, drawn)
    noised, watch = diffusion.noised(model.schedule, latents, drawn), bool(counts.localization.any())
    text = None if batch.states is None else Text(batch.states, batch.pooled)
    found = predict(
        model, noised, drawn.timesteps, batch.tokens, batch.subject, batch.present, watch, always,
        text, batch.features, batch.known,
    )  # fmt: skip
    said, target = found.said.float(), diffusion.target_of(model.schedule, latents, drawn)
    weights = losses.mask_weights(batch.mask, p.mask_weight, (latents.shape[2], latents.shape[3]))
    return Terms(
        denoising=(losses.denoising_loss(said, target, weights) * weigh.denoising).sum(),
        identity=identity_sum(
            model, identity, noised, said, drawn.timesteps, batch, weigh.identity, numbers(counts.identity > 0, device)
        ),
        localization=localization_sum(found.shares, batch, weigh.localization, shown),
    )


def counts_on(counts: Counts, device: torch.device) -> Counts:
    """The same on the device."""
    return Counts(**{f.name: getattr(counts, f.name).to(device, non_blocking=True) for f in fields(Counts)})


def latents_of(
    model: SubjectModel, batch: Batch, drawn: diffusion.Noise
) -> Float[Tensor, "batch channels rows columns"]:
    """The latents of the targets; where they are cached, a sample from what is known of them."""
    if batch.mean is not None and batch.std is not None:
        return sampled(model, batch.mean, batch.std, drawn.encoding)
    if batch.target is None:
        raise ValueError("a batch has neither targets nor their latents")
    return encode_images(model, batch.target, drawn.encoding)


def localization_sum(
    shares: list[Float[Tensor, "shown pixels"]],
    batch: Batch,
    counts: Float[Tensor, " batch"],
    shown: Int[Tensor, " shown"],
) -> Float[Tensor, ""]:
    """The localization losses of the samples that show an object, as they count."""
    if not shares:
        return counts.new_zeros(())
    return (losses.localization_loss(shares, batch.mask[shown]) * counts[shown]).sum()


def identity_sum(
    model: SubjectModel,
    identity: Identity | None,
    noised: Float[Tensor, "batch channels rows columns"],
    said: Float[Tensor, "batch channels rows columns"],
    timesteps: Tensor,
    batch: Batch,
    counts: Float[Tensor, " batch"],
    some: Int[Tensor, " some"],
) -> Float[Tensor, ""]:
    """The identity losses of the samples that count, by number, weighted and summed; only those are decoded."""
    if identity is None or not len(some):
        return counts.new_zeros(())
    estimate = diffusion.clean_estimate(model.schedule, noised[some], said[some], timesteps[some])
    images = model.family.decode(estimate)
    found = identity(losses.object_crops(images, batch.mask[some], batch.frame[some], batch.view.shape[-1]))
    with torch.no_grad():
        wanted = identity(batch.view[some])
    return (losses.identity_loss(found, wanted) * counts[some]).sum()
