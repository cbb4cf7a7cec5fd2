"""The training loop, a generator: it computes, its caller logs and saves (Jia et al., 2023, sections 3.2 and 3.3)."""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.model import diffusion, lora
from taming_core.model.subject_model import Parameters, SubjectModel, rates, unfreeze
from taming_core.params.train import TrainParams
from taming_core.training import distributed
from taming_core.training.batches import Batch, BatchAt
from taming_core.training.distributed import Team
from taming_core.training.ema import average_of
from taming_core.training.gradient_checkpointing import recompute
from taming_core.training.objective import Identity, Terms, counts_of, terms_of, total
from taming_core.training.optimizers import optimizer_of
from taming_core.weights.device import DTYPES


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
    crew: Team = field(default_factory=Team)
    shared_out: bool = False  # whether the processes hold but a part of the denoiser's weights each

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


FIGURES = tuple(f.name for f in fields(Terms))  # that the device computes of a step, followed by the gradient's norm

ASKED = ("present", "known")  # parts of a batch that stay on the CPU, where to ask what they hold takes no waiting


@dataclass(frozen=True)
class Taken:
    """A step whose figures are on their way from the device."""

    step: int  # counted from 0
    row_ids: tuple[str, ...]
    learning_rate: float
    figures: Tensor
    counted: dict[str, bool]  # whether any sample counts in a term
    arrived: Any  # a CUDA event; None where the figures are there


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
    """Accelerate's device placement and mixed precision, in each of the processes that a launcher started.

    Raises:
        TamingError: the device cannot train in this precision.
    """
    if device == "cpu" and precision == "fp16":
        raise TamingError("train.precision fp16 needs a GPU. Set it to bf16 or fp32, or use another --device.")
    return Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def begin(
    model: SubjectModel,
    identity: Identity | None,
    accelerator: Accelerator,
    p: TrainParams,
    crew: Team | None = None,
    shard: bool = False,
) -> Run:
    """A run at step 0; with `shard` the processes of the crew share the denoiser's weights out.

    Raises:
        TamingError: the processes cannot share these batches, or the optimizer is not installed.
    """
    crew = crew or Team()
    distributed.require_shares(crew.count, p, shard, model.object_encoder.config["injection"])
    if p.lora is not None:
        lora.add(model.family.denoiser, p.lora, p.seed)
    if p.gradient_checkpointing:
        recompute(model.family.denoiser)
    place(model, accelerator.device, p)
    if shard:
        distributed.shard(model.family.denoiser, crew.count, accelerator.device)
    trained = unfreeze(model, p)
    groups = [{"params": list(trained[part].values()), "share": share} for part, share in rates(model, p).items()]
    optimizer = accelerator.prepare(optimizer_of(groups, p, accelerator.device))
    run = Run(model, trained, identity, optimizer, accelerator, crew=crew, shared_out=shard)
    run.average = average_of(run.weights, p.ema)
    return run


def place(model: SubjectModel, device: torch.device, p: TrainParams) -> None:
    """Bring all parts to the device, what is frozen in the precision of the training, what trains in float32."""
    unfreeze(model, p)
    half = None if p.precision == "fp32" else DTYPES[p.precision]
    for name, part in model.parts.items():
        if half is not None and not (half == torch.float16 and name == "vae"):  # fp16 is too narrow for SDXL's
            lighten(part, half)
        part.to(device)
        if device.type == "cuda" and name in ("vae", "denoiser"):
            part.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # what convolutions there like


def lighten(part: nn.Module, half: torch.dtype) -> None:
    """Hold frozen weights in half precision, all but those of norms, which autocast computes in float32."""
    for module in part.modules():
        for weight in module.parameters(recurse=False):
            if weight.requires_grad:
                weight.data = weight.data.float()  # a LoRA that was made beside weights in half precision
            elif "Norm" not in type(module).__name__:
                weight.data = weight.data.to(half)


def train(run: Run, p: TrainParams, batch_at: BatchAt, behind: int | None = None) -> Iterator[Report]:
    """Train to the last step and yield a report after each one; goes on where the run stands.

    Args:
        run: the run.
        p: its params.
        batch_at: makes this process's share of the batch of a step.
        behind: how many steps may be on their way before a report waits for its figures; None for what suits the
            device. None are when something is due, so that no bad step is ever saved.

    Raises:
        TamingError: the loss or the norm of its gradient is not finite.
    """
    if behind is None:  # a CPU is never ahead of itself
        behind = 0 if run.accelerator.device.type == "cpu" else 1
    waiting = deque[Taken]()
    for taken in updates(run, p, batch_at, check=behind == 0):
        waiting.append(taken)
        last = taken.step + 1
        pause = last == p.steps or due(last, p.save_every, p.steps) or due(last, p.validation.every, p.steps)
        while len(waiting) > (0 if pause else behind):
            yield read(waiting.popleft(), p)


def updates(run: Run, p: TrainParams, batch_at: BatchAt, check: bool) -> Iterator[Taken]:
    """Change the weights step by step; with `check` a step that is not finite changes nothing."""
    for step in range(run.step, p.steps):
        rate = learning_rate_at(step, p)
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = batch_at(step)
        sums, counted = forward_backward(run, batch, noise_of(run, batch, step, p), p)
        distributed.add_up(run.weights, run.crew)
        found = torch.cat([distributed.summed(sums, run.crew), clip(run, p).reshape(1)])
        taken = taken_of(step, batch.row_ids, rate, found, counted)
        if check:
            read(taken, p)
        if any(weight.grad is not None for weight in run.weights):  # else a scaler has nothing to go by
            run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        if run.average is not None:
            run.average.step(run.weights)
        run.step = step + 1
        yield taken


def clip(run: Run, p: TrainParams) -> Tensor:
    """Clip the gradients; returns their norm before.

    It is 0 without any: an encoder that trains alone has nothing to learn from a batch without an object.
    """
    having = [weight for weight in run.weights if weight.grad is not None]
    if not having:
        return torch.zeros((), device=run.accelerator.device)
    if run.shared_out:
        return distributed.clip(having, p.max_grad_norm)
    return run.accelerator.clip_grad_norm_(having, p.max_grad_norm)  # pyright: ignore[reportReturnType, reportArgumentType]


def taken_of(step: int, row_ids: tuple[str, ...], rate: float, figures: Tensor, counted: dict[str, bool]) -> Taken:
    """A step whose figures set out for the host, which does not wait for them."""
    if figures.device.type != "cuda":
        return Taken(step, row_ids, rate, figures, counted, None)
    here = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True).copy_(figures, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return Taken(step, row_ids, rate, here, counted, arrived)


def read(taken: Taken, p: TrainParams) -> Report:
    """The report of a step; waits for its figures.

    Raises:
        TamingError: one of them is not finite.
    """
    if taken.arrived is not None:
        taken.arrived.synchronize()
    *terms, norm = taken.figures.tolist()
    sums = dict(zip(FIGURES, terms, strict=True))
    counted = {n: sums[n] if there else None for n, there in taken.counted.items()}
    found = Losses(total(**sums, p=p), sums["denoising"], **counted)
    require_finite("loss", found.loss, taken)
    if p.precision != "fp16":  # whose scaler leaves such a step out, and scales the loss down
        require_finite("gradient norm", norm, taken)
    return Report(taken.step + 1, found, taken.learning_rate, norm)


def timed(reports: Iterator[Report]) -> Iterator[tuple[Report, float]]:
    """Each report with the seconds that its step took, not counting what is done with it."""
    start = time.perf_counter()
    for report in reports:
        yield report, time.perf_counter() - start
        start = time.perf_counter()


def due(step: int, every: int, steps: int) -> bool:
    """Whether something happens after this step that happens every so many, and after the last; never if that is 0."""
    return every > 0 and (step % every == 0 or step == steps)


def noise_of(run: Run, batch: Batch, step: int, p: TrainParams) -> diffusion.Noise:
    """The noise of a step, in the shape of the batch's latents: this process's share of what is drawn for all."""
    family = run.model.family
    count, _, height, width = batch.mask.shape
    shape = (count * run.crew.count, family.latent_channels, height // family.vae_side, width // family.vae_side)
    drawn = diffusion.noise_at(step, shape, run.model.schedule, p.seed, p.offset_noise)
    return diffusion.part_of(drawn, run.crew.share(shape[0]), torch.device("cpu"))


def require_finite(what: str, value: float, taken: Taken) -> None:
    """Raises TamingError if the value is not finite."""
    if not math.isfinite(value):
        raise TamingError(f"The {what} is {value} in step {taken.step + 1}, with rows {', '.join(taken.row_ids)}. "
                          "Lower train.learning_rate, or set train.precision to fp32.")  # fmt: skip


def forward_backward(
    run: Run, batch: Batch, drawn: diffusion.Noise, p: TrainParams
) -> tuple[Float[Tensor, " terms"], dict[str, bool]]:
    """Gradients of a batch, micro-batch by micro-batch; they add up to those of the batch as a whole.

    Returns the terms of the loss as `FIGURES` names them, on the device, and which of them any sample counts in.
    Nothing in here asks the device for a number, so that the host runs ahead of it.
    """
    crew, device = run.crew, run.accelerator.device
    present, timesteps = crew.everyones(batch.present), crew.everyones(drawn.timesteps)
    everyones = counts_of(run.model, run.identity, present, timesteps, p)
    counts, size = everyones.some(crew.share(len(present))), len(batch.row_ids)
    # Processes that share the denoiser's weights do the same with it at the same time.
    alike = present.view(crew.count, -1, p.micro_batch_size).any(2).any(0) if run.shared_out else None
    sums = torch.zeros(len(FIGURES), device=device)
    for number, start in enumerate(range(0, size, p.micro_batch_size)):
        rows = slice(start, start + p.micro_batch_size)
        part, noise_here = rows_of(batch, rows, device), diffusion.part_of(drawn, rows, device)
        always = alike is not None and bool(alike[number])
        with run.accelerator.autocast():
            terms = terms_of(run.model, run.identity, part, noise_here, counts.some(rows), p, always)
        loss_here = total(terms.denoising, terms.identity, terms.localization, p)
        if loss_here.requires_grad:  # not so without an object, where the encoder trains alone
            run.accelerator.backward(loss_here)
        sums += torch.stack([getattr(terms, name).detach().float() for name in FIGURES])
    return sums, {n: bool(getattr(everyones, n).any()) for n in ("identity", "localization")}


def rows_of(batch: Batch, rows: slice, device: torch.device) -> Batch:
    """Some rows of a batch, on the device, all but what is asked on the CPU."""
    return Batch(**{f.name: on(f.name, getattr(batch, f.name), rows, device) for f in fields(Batch)})


def on(name: str, value: Any, rows: slice, device: torch.device) -> Any:
    """Some rows of one field of a batch."""
    if value is None:
        return None
    here = value[rows]
    return here.to(device, non_blocking=True) if isinstance(here, Tensor) and name not in ASKED else here


def pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU copies from while it computes."""
    found = {f.name: getattr(batch, f.name) for f in fields(Batch)}
    here: Any = {n: v.pin_memory() if isinstance(v, Tensor) and n not in ASKED else v for n, v in found.items()}
    return Batch(**here)


def pinning(device: torch.device, batch_at: BatchAt) -> BatchAt:
    """`batch_at`, made ready for a GPU by whatever thread makes it."""
    return (lambda step: pinned(batch_at(step))) if device.type == "cuda" else batch_at


def results(run: Run) -> dict[str, dict[str, Tensor]]:
    """All that was trained, on the CPU; every process must call it, for weights that are shared out."""
    return {part: {n: distributed.full(w).clone() for n, w in weights.items()} for part, weights in run.trained.items()}


def deliver(found: dict[str, dict[str, Tensor]], model: SubjectModel, p: TrainParams) -> None:
    """Put the results into the model that the run started from.

    Its frozen weights are whole, and all here, whatever precision and place the run's own model had them in.
    """
    if p.lora is not None:
        lora.add(model.family.denoiser, p.lora, p.seed)
    for part, weights in found.items():
        parameters = dict(model.parts[part].named_parameters())
        for name, weight in weights.items():
            parameters[name].data = weight
