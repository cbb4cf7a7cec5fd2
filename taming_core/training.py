"""The training loop, a generator: it computes, its caller logs and saves (Jia et al., 2023, sections 3.2 and 3.3)."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from taming_core import lora, loss, noise
from taming_core.average import average_of
from taming_core.batches import Batch, BatchAt
from taming_core.errors import TamingError
from taming_core.recompute import recompute
from taming_core.subject_model import (
    Parameters,
    SubjectModel,
    decode_latents,
    encode_images,
    predict,
    rates,
    unfreeze,
)
from taming_core.train_params import TrainParams

Identity = Callable[[Tensor], Tensor]
T = TypeVar("T", float, Tensor)


@dataclass
class Run:
    """A training under way; `step` counts completed optimizer updates."""

    model: SubjectModel
    trained: dict[str, Parameters]  # by part and name
    identity: Identity | None
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    average: EMAModel | None = None  # of all that trains, in the order of `weights`
    step: int = 0

    @property
    def weights(self) -> list[nn.Parameter]:
        """All that trains."""
        return [weight for part in self.trained.values() for weight in part.values()]


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


@dataclass(frozen=True)
class Losses:
    """The loss of a batch and its parts; a part is None where no sample counts."""

    loss: float
    denoising: float
    identity: float | None
    localization: float | None


@dataclass(frozen=True)
class Report:
    """What one step did."""

    step: int  # completed steps
    losses: Losses
    learning_rate: float
    grad_norm: float


def learning_rate_at(step: int, p: TrainParams) -> float:
    """The learning rate of the object encoder in a step, counted from 0: warm-up, then the schedule down to 0."""
    if step < p.warmup:
        return p.learning_rate * (step + 1) / (p.warmup + 1)
    left = 1 - (step - p.warmup) / (p.steps - p.warmup)
    shapes = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}
    return p.learning_rate * shapes[p.schedule]


def accelerator_for(device: str, precision: str) -> Accelerator:
    """Accelerate's device placement and mixed precision.

    Raises:
        TamingError: the device cannot train in this precision, or there are several processes.
    """
    if device == "cpu" and precision == "fp16":
        raise TamingError("train.precision fp16 needs a GPU. Set it to bf16 or fp32, or use another --device.")
    found = Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)
    if found.num_processes > 1:
        raise TamingError("Training runs in one process. Start it with `taming train`, not with `accelerate launch`.")
    return found


def begin(model: SubjectModel, identity: Identity | None, accelerator: Accelerator, p: TrainParams) -> Run:
    """A run at step 0; the model must be on the accelerator's device."""
    if p.lora is not None:
        lora.add(model.denoiser, p.lora, p.seed)
    if p.gradient_checkpointing:
        recompute(model.denoiser)
    trained = unfreeze(model, p)
    groups = [{"params": list(trained[part].values()), "share": share} for part, share in rates(p).items()]
    optimizer = torch.optim.AdamW(groups, lr=p.learning_rate, weight_decay=p.weight_decay)
    run = Run(model, trained, identity, accelerator.prepare(optimizer), accelerator)
    run.average = average_of(run.weights, p.ema)
    return run


def train(run: Run, p: TrainParams, batch_at: BatchAt) -> Iterator[Report]:
    """Train to the last step and yield a report after each one; goes on where the run stands.

    Raises:
        TamingError: the loss or the norm of its gradient is not finite.
    """
    for step in range(run.step, p.steps):
        rate = learning_rate_at(step, p)
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = batch_at(step)
        losses = forward_backward(run, batch, noise_of(run, batch, step, p), p)
        require_finite("loss", losses.loss, batch, step)
        norm = descend(run, batch, step, p)
        if run.average is not None:
            run.average.step(run.weights)
        run.step = step + 1
        yield Report(run.step, losses, rate, norm)


def descend(run: Run, batch: Batch, step: int, p: TrainParams) -> float:
    """Change what trains by its clipped gradients, and forget them; returns their norm before.

    Raises:
        TamingError: the norm is not finite.
    """
    if all(weight.grad is None for weight in run.weights):
        return 0.0  # an encoder that trains alone has nothing to learn from a batch without an object
    norm = float(run.accelerator.clip_grad_norm_(run.weights, p.max_grad_norm))  # pyright: ignore[reportArgumentType]
    if run.accelerator.scaler is None:  # else it leaves such a step out, and scales the loss down
        require_finite("gradient norm", norm, batch, step)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def timed(reports: Iterator[Report]) -> Iterator[tuple[Report, float]]:
    """Each report with the seconds that its step took, not counting what is done with it."""
    start = time.perf_counter()
    for report in reports:
        yield report, time.perf_counter() - start
        start = time.perf_counter()


def due(step: int, every: int, steps: int) -> bool:
    """Whether something happens after this step that happens every so many, and after the last; never if that is 0."""
    return every > 0 and (step % every == 0 or step == steps)


def noise_of(run: Run, batch: Batch, step: int, p: TrainParams) -> noise.Noise:
    """The noise of a step, in the shape of the batch's latents."""
    vae = run.model.vae.config
    side = 2 ** (len(vae["block_out_channels"]) - 1)
    count, _, height, width = batch.target.shape
    shape = (count, vae["latent_channels"], height // side, width // side)
    return noise.noise_at(step, shape, run.model.schedule.config["num_train_timesteps"], p.seed, p.offset_noise)


def require_finite(what: str, value: float, batch: Batch, step: int) -> None:
    """Raises TamingError if the value is not finite."""
    if not math.isfinite(value):
        raise TamingError(f"The {what} is {value} in step {step + 1}, with rows {', '.join(batch.row_ids)}. "
                          "Lower train.learning_rate, or set train.precision to fp32.")  # fmt: skip


def forward_backward(run: Run, batch: Batch, drawn: noise.Noise, p: TrainParams) -> Losses:
    """Gradients and losses of a batch, micro-batch by micro-batch; they add up to those of the batch as a whole."""
    counts = counts_of(run, batch, drawn.timesteps, p)
    sums = dict.fromkeys((f.name for f in fields(Terms)), 0.0)
    for start in range(0, len(batch.row_ids), p.micro_batch_size):
        rows, device = slice(start, start + p.micro_batch_size), run.accelerator.device
        here = Counts(**{f.name: getattr(counts, f.name)[rows].to(device) for f in fields(Counts)})
        terms = micro_losses(run, rows_of(batch, rows, device), noise.part_of(drawn, rows, device), here, p)
        loss_here = total(terms.denoising, terms.identity, terms.localization, p)
        if loss_here.requires_grad:  # not so without an object, where the encoder trains alone
            run.accelerator.backward(loss_here)
        sums = {name: value + float(getattr(terms, name).detach()) for name, value in sums.items()}
    found = {name: sums[name] if bool(getattr(counts, name).any()) else None for name in ("identity", "localization")}
    return Losses(total(**sums, p=p), sums["denoising"], **found)


def total(denoising: T, identity: T, localization: T, p: TrainParams) -> T:
    """The loss that is brought down, of its parts."""
    return denoising + p.identity_weight * identity + p.localization_weight * localization


def counts_of(run: Run, batch: Batch, timesteps: Int[Tensor, " batch"], p: TrainParams) -> Counts:
    """How much each sample counts: all in the denoising loss, samples with an object in the other two."""
    signal = noise.alpha_bar(run.model.schedule, timesteps).flatten()
    weights = loss.snr_weights(signal, run.model.schedule.config["prediction_type"], p.min_snr)
    nothing = torch.zeros_like(signal)
    clear = loss.identity_weights(signal, timesteps, batch.present, p.identity_max_timestep or 0)
    shown = batch.present.float() if p.localization_weight > 0 else nothing
    return Counts(
        denoising=weights / len(signal),
        identity=nothing if run.identity is None else clear / clear.sum().clamp(min=1e-6),
        localization=shown / shown.sum().clamp(min=1),
    )


def rows_of(batch: Batch, rows: slice, device: torch.device) -> Batch:
    """Some rows of a batch, on the device."""
    parts = {f.name: getattr(batch, f.name)[rows] for f in fields(Batch)}
    return Batch(**{n: v.to(device) if isinstance(v, Tensor) else v for n, v in parts.items()})  # pyright: ignore[reportArgumentType]


def micro_losses(run: Run, batch: Batch, drawn: noise.Noise, counts: Counts, p: TrainParams) -> Terms:
    """The terms of a batch that is on the device as a whole."""
    model, watch = run.model, bool(counts.localization.any())
    with run.accelerator.autocast():
        latents = encode_images(model, batch.target, drawn.encoding)
        noised = noise.noised(model.schedule, latents, drawn)
        found = predict(model, noised, drawn.timesteps, batch.tokens, batch.subject, batch.present, watch)
        said, target = found.said.float(), noise.target_of(model.schedule, latents, drawn)
        identity = identity_sum(run, noised, said, drawn.timesteps, batch, counts.identity)
    weights = loss.mask_weights(batch.mask, p.mask_weight, (latents.shape[2], latents.shape[3]))
    denoising = (loss.denoising_loss(said, target, weights) * counts.denoising).sum()
    return Terms(denoising, identity, localization_sum(found.shares, batch, counts.localization))


def localization_sum(
    shares: list[Float[Tensor, "shown pixels"]], batch: Batch, counts: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """The localization losses of the samples that show an object, as they count."""
    if not shares:
        return counts.new_zeros(())
    return (loss.localization_loss(shares, batch.mask[batch.present]) * counts[batch.present]).sum()


def identity_sum(
    run: Run,
    noised: Float[Tensor, "batch channels rows columns"],
    said: Float[Tensor, "batch channels rows columns"],
    timesteps: Int[Tensor, " batch"],
    batch: Batch,
    counts: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """The identity losses of the samples that count, weighted and summed; only those are decoded."""
    some = counts > 0
    if run.identity is None or not bool(some.any()):
        return counts.new_zeros(())
    estimate = noise.clean_estimate(run.model.schedule, noised[some], said[some], timesteps[some])
    images = decode_latents(run.model, estimate)
    found = run.identity(loss.object_crops(images, batch.mask[some], batch.frame[some], batch.view.shape[-1]))
    with torch.no_grad():
        wanted = run.identity(batch.view[some])
    return (loss.identity_loss(found, wanted) * counts[some]).sum()
