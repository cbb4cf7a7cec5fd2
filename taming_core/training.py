"""The training loop, a generator: it computes, its caller logs and saves (Jia et al., 2023, sections 3.2 and 3.3)."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from taming_core import lora, noise
from taming_core.average import average_of
from taming_core.batches import Batch, BatchAt
from taming_core.errors import TamingError
from taming_core.objective import Counts, Identity, Terms, counts_of, terms_of, total
from taming_core.recompute import recompute
from taming_core.subject_model import Parameters, SubjectModel, rates, unfreeze
from taming_core.train_params import TrainParams


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
        lora.add(model.family.denoiser, p.lora, p.seed)
    if p.gradient_checkpointing:
        recompute(model.family.denoiser)
    trained = unfreeze(model, p)
    groups = [{"params": list(trained[part].values()), "share": share} for part, share in rates(model, p).items()]
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
    family = run.model.family
    count, _, height, width = batch.target.shape
    shape = (count, family.latent_channels, height // family.vae_side, width // family.vae_side)
    return noise.noise_at(step, shape, run.model.schedule, p.seed, p.offset_noise)


def require_finite(what: str, value: float, batch: Batch, step: int) -> None:
    """Raises TamingError if the value is not finite."""
    if not math.isfinite(value):
        raise TamingError(f"The {what} is {value} in step {step + 1}, with rows {', '.join(batch.row_ids)}. "
                          "Lower train.learning_rate, or set train.precision to fp32.")  # fmt: skip


def forward_backward(run: Run, batch: Batch, drawn: noise.Noise, p: TrainParams) -> Losses:
    """Gradients and losses of a batch, micro-batch by micro-batch; they add up to those of the batch as a whole."""
    counts = counts_of(run.model, run.identity, batch, drawn.timesteps, p)
    sums = dict.fromkeys((f.name for f in fields(Terms)), 0.0)
    for start in range(0, len(batch.row_ids), p.micro_batch_size):
        rows, device = slice(start, start + p.micro_batch_size), run.accelerator.device
        here = Counts(**{f.name: getattr(counts, f.name)[rows].to(device) for f in fields(Counts)})
        part, drawn_here = rows_of(batch, rows, device), noise.part_of(drawn, rows, device)
        with run.accelerator.autocast():
            terms = terms_of(run.model, run.identity, part, drawn_here, here, p)
        loss_here = total(terms.denoising, terms.identity, terms.localization, p)
        if loss_here.requires_grad:  # not so without an object, where the encoder trains alone
            run.accelerator.backward(loss_here)
        sums = {name: value + float(getattr(terms, name).detach()) for name, value in sums.items()}
    found = {name: sums[name] if bool(getattr(counts, name).any()) else None for name in ("identity", "localization")}
    return Losses(total(**sums, p=p), sums["denoising"], **found)


def rows_of(batch: Batch, rows: slice, device: torch.device) -> Batch:
    """Some rows of a batch, on the device."""
    parts = {f.name: getattr(batch, f.name)[rows] for f in fields(Batch)}
    return Batch(**{n: v.to(device) if isinstance(v, Tensor) else v for n, v in parts.items()})  # pyright: ignore[reportArgumentType]
