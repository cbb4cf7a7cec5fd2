"""The training loop, a generator: it computes, its caller logs and saves (Jia et al., 2023, sections 3.2 and 3.3)."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from taming_core import loss, noise
from taming_core.batches import Batch, BatchAt
from taming_core.config import TrainParams
from taming_core.errors import TamingError
from taming_core.subject_model import (
    Parameters,
    SubjectModel,
    decode_latents,
    encode_images,
    predict,
    rates,
    unfreeze,
)

Identity = Callable[[Tensor], Tensor]


@dataclass
class Run:
    """A training under way; `step` counts completed optimizer updates."""

    model: SubjectModel
    trained: dict[str, Parameters]  # by part and name
    identity: Identity | None
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    step: int = 0


@dataclass(frozen=True)
class Losses:
    """The loss of a batch and its parts."""

    loss: float
    denoising: float
    identity: float | None  # None where no sample counts


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
    trained = unfreeze(model, p)
    groups = [{"params": list(trained[part].values()), "share": share} for part, share in rates(p).items()]
    optimizer = torch.optim.AdamW(groups, lr=p.learning_rate, weight_decay=p.weight_decay)
    return Run(model, trained, identity, accelerator.prepare(optimizer), accelerator)


def train(run: Run, p: TrainParams, batch_at: BatchAt) -> Iterator[Report]:
    """Train to the last step and yield a report after each one; goes on where the run stands.

    Raises:
        TamingError: the loss is not finite.
    """
    for step in range(run.step, p.steps):
        rate = learning_rate_at(step, p)
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = batch_at(step)
        losses = forward_backward(run, batch, noise_of(run, batch, step, p), p)
        require_finite(losses, batch, step)
        weights = [w for part in run.trained.values() for w in part.values()]
        norm = run.accelerator.clip_grad_norm_(weights, p.max_grad_norm)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.step = step + 1
        yield Report(run.step, losses, rate, float(norm))  # pyright: ignore[reportArgumentType]


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
    return noise.noise_at(step, shape, run.model.schedule.config["num_train_timesteps"], p.seed)


def require_finite(losses: Losses, batch: Batch, step: int) -> None:
    """Raises TamingError if the loss is not finite."""
    if not math.isfinite(losses.loss):
        raise TamingError(f"The loss is {losses.loss} in step {step + 1}, with rows {', '.join(batch.row_ids)}. "
                          "Lower train.learning_rate, or set train.precision to fp32.")  # fmt: skip


def forward_backward(run: Run, batch: Batch, drawn: noise.Noise, p: TrainParams) -> Losses:
    """Gradients and losses of a batch, micro-batch by micro-batch; they add up to those of the batch as a whole."""
    signal = noise.alpha_bar(run.model.schedule, drawn.timesteps).flatten()
    counts = loss.identity_weights(signal, drawn.timesteps, batch.present, p.identity_max_timestep)
    counts = counts / counts.sum().clamp(min=1e-6) if run.identity is not None else torch.zeros_like(counts)
    denoising, identity = 0.0, 0.0
    for start in range(0, len(batch.row_ids), p.micro_batch_size):
        rows = slice(start, start + p.micro_batch_size)
        d, i = micro_losses(run, rows_of(batch, rows, run.accelerator.device), drawn, counts, rows, p)
        d = d / len(batch.row_ids)
        run.accelerator.backward(d + p.identity_weight * i)
        denoising, identity = denoising + float(d.detach()), identity + float(i.detach())
    return Losses(denoising + p.identity_weight * identity, denoising, identity if bool(counts.any()) else None)


def rows_of(batch: Batch, rows: slice, device: torch.device) -> Batch:
    """Some rows of a batch, on the device."""
    parts = {f.name: getattr(batch, f.name)[rows] for f in fields(Batch)}
    return Batch(**{n: v.to(device) if isinstance(v, Tensor) else v for n, v in parts.items()})  # pyright: ignore[reportArgumentType]


def micro_losses(
    run: Run, batch: Batch, drawn: noise.Noise, counts: Float[Tensor, " all"], rows: slice, p: TrainParams
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The sums over some rows of denoising loss and weighted identity loss."""
    model, here = run.model, noise.part_of(drawn, rows, run.accelerator.device)
    with run.accelerator.autocast():
        latents = encode_images(model, batch.target, here.encoding)
        noised = noise.noised(model.schedule, latents, here)
        said = predict(model, noised, here.timesteps, batch.tokens, batch.subject, batch.present).float()
        target = noise.target_of(model.schedule, latents, here)
        weights = loss.mask_weights(batch.mask, p.mask_weight, (latents.shape[2], latents.shape[3]))
        identity = identity_sum(run, noised, said, here.timesteps, batch, counts[rows].to(latents.device))
    return loss.denoising_loss(said, target, weights).sum(), identity


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
