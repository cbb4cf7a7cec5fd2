"""The training loop, a generator: it computes, its caller logs and saves (Jia et al., 2023, sections 3.2 and 3.3)."""

import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    InitProcessGroupKwargs,
    KwargsHandler,
    patch_environment,  # pyright: ignore[reportUnknownVariableType]  # untyped
)
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.model import diffusion, lora
from taming_core.model.inputs import Batch
from taming_core.model.subject_model import Parameters, SubjectModel, learning_rate_shares, unfreeze
from taming_core.params.train import TrainParams
from taming_core.training import distributed
from taming_core.training.batches import BatchAt
from taming_core.training.compilation import compile_blocks
from taming_core.training.data_loader import batch_slice
from taming_core.training.distributed import ProcessGroup
from taming_core.training.ema import new_ema
from taming_core.training.gradient_checkpointing import enable_gradient_checkpointing
from taming_core.training.objective import (
    IdentityNetwork,
    LossTerms,
    compute_loss_terms,
    compute_sample_weights,
    total_loss,
)
from taming_core.training.optimizers import make_optimizer
from taming_core.weights.device import DTYPES, fast_kernels
from taming_core.weights.precision import float32_names, run_without_autocast


@dataclass
class Run:
    """A training under way; `step` counts completed optimizer updates."""

    model: SubjectModel
    trained: dict[str, Parameters]  # by network and name
    identity: IdentityNetwork | None
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    ema: EMAModel | None = None  # in the order of `weights`
    step: int = 0
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    sharded: bool = False  # whether the denoiser's weights are sharded

    @property
    def weights(self) -> list[nn.Parameter]:
        """All trained weights."""
        return [weight for part in self.trained.values() for weight in part.values()]


@dataclass(frozen=True)
class Losses:
    """The loss of a batch and its terms; a term is None if all of its sample weights are 0."""

    loss: float
    denoising: float
    identity: float | None
    localization: float | None


TERMS = tuple(f.name for f in fields(LossTerms))


@dataclass(frozen=True)
class PendingStep:
    """A step whose figures are being copied from the device."""

    step: int  # counted from 0
    row_ids: tuple[str, ...]
    learning_rate: float
    figures: Float[Tensor, " figures"]  # `TERMS`, followed by the gradient norm
    has_samples: dict[str, bool]  # for each term, whether any of its sample weights is above 0
    event: Any  # the CUDA event of the copy; None if the figures are on the CPU


@dataclass(frozen=True)
class StepReport:
    """The figures of one step."""

    step: int  # completed steps
    losses: Losses
    learning_rate: float
    grad_norm: float


def learning_rate_at(step: int, p: TrainParams) -> float:
    """The learning rate of the object encoder in a step, counted from 0: warm-up, then the schedule."""
    if step < p.warmup:
        return p.learning_rate * (step + 1) / (p.warmup + 1)
    remaining = 1 - (step - p.warmup) / (p.steps - p.warmup)
    factors = {"constant": 1.0, "linear": remaining, "cosine": 0.5 - 0.5 * math.cos(math.pi * remaining)}
    return p.learning_rate * factors[p.schedule]


def accelerator_for(device: str, precision: str) -> Accelerator:
    """Accelerate's device placement and mixed precision, for this process.

    Raises:
        TamingError: the device does not support training in this precision, or is one GPU for several processes.
    """
    if device == "cpu" and precision == "fp16":
        raise TamingError("train.precision fp16 needs a GPU. Set it to bf16 or fp32, or use another --device.")
    if ":" in device and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TamingError(f"--device {device} is one GPU, and several processes train. Use --device cuda, which gives "
                          "each process its own.")  # fmt: skip
    require_own_sharding()
    named = {"ACCELERATE_TORCH_DEVICE": device} if ":" in device else {}  # else Accelerate takes the first GPU
    joining: list[KwargsHandler] = [InitProcessGroupKwargs(timeout=distributed.JOINING)]
    with patch_environment(**named):
        return Accelerator(
            cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision, kwargs_handlers=joining
        )


def require_own_sharding() -> None:
    """Require a configuration of `accelerate launch` that only starts processes.

    Raises:
        TamingError: it asks for FSDP, DeepSpeed or the like, which this training would not do.
    """
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise TamingError(f"The configuration of `accelerate launch` asks for {name}, which `taming train` does "
                              "not use. Set its distributed_type to MULTI_GPU, and see --shard.")  # fmt: skip


def start_run(
    model: SubjectModel,
    identity: IdentityNetwork | None,
    accelerator: Accelerator,
    p: TrainParams,
    processes: ProcessGroup | None = None,
    shard: bool = False,
) -> Run:
    """A run at step 0; with `shard` the denoiser's weights are sharded over the processes.

    Raises:
        TamingError: the batch size is not divisible among the processes, or the optimizer is not installed.
    """
    processes = processes or ProcessGroup()
    distributed.require_divisible(processes.world_size, p, shard, model.object_encoder.config["injection"])
    if p.lora is not None:
        lora.add_lora(model.family.denoiser, p.lora, p.seed)
    if p.gradient_checkpointing:
        enable_gradient_checkpointing(model.family)
    move_to_device(model, accelerator.device, p, shard)
    if shard:
        distributed.shard(model.family.denoiser, processes.world_size, accelerator.device)
    if p.compile:
        compile_blocks(model.family.denoiser)
    trained = unfreeze(model, p)
    groups = [
        {"params": list(trained[part].values()), "share": share}
        for part, share in learning_rate_shares(model, p).items()
    ]
    untyped: Any = accelerator
    optimizer = untyped.prepare(make_optimizer(groups, p, accelerator.device))
    run = Run(model, trained, identity, optimizer, accelerator, processes=processes, sharded=shard)
    run.ema = new_ema(run.weights, p.ema)
    return run


def move_to_device(model: SubjectModel, device: torch.device, p: TrainParams, shard: bool = False) -> None:
    """Move all networks to the device, frozen weights in the precision of the training, trained ones in float32.

    With `shard` the denoiser stays on the CPU: it may not fit the device before `distributed.shard`, which moves it.
    """
    unfreeze(model, p)
    half = None if p.precision == "fp32" else DTYPES[p.precision]
    for name, part in model.networks.items():
        if half is not None and not (half == torch.float16 and name == "vae"):  # SDXL's overflows in fp16
            cast_frozen(part, half, float32_names(part, half))
            run_without_autocast(part, half)
        if shard and name == "denoiser":
            continue
        part.to(device)
        if device.type == "cuda" and name in ("vae", "denoiser"):
            untyped: Any = part
            untyped.to(memory_format=torch.channels_last)  # faster convolutions


def cast_frozen(part: nn.Module, half: torch.dtype, kept: re.Pattern[str]) -> None:
    """Cast frozen weights to half precision, all but those that are computed in float32.

    Those are the weights of norms, by autocast, and the ones whose names match `kept`, by the network's library.
    """
    untyped: Any = part
    modules: dict[str, nn.Module] = dict(untyped.named_modules())
    for path, module in modules.items():
        for name, weight in module.named_parameters(recurse=False):
            # A LoRA gets the precision of the weights that it was added to, and a frozen norm that of the loaded ones.
            full = weight.requires_grad or "Norm" in type(module).__name__ or kept.search(f"{path}.{name}")
            weight.data = weight.data.to(torch.float32 if full else half)


def train(
    run: Run,
    p: TrainParams,
    batch_at: BatchAt,
    lag: int | None = None,
    is_stopping: Callable[[], bool] = bool,
    is_pausing: Callable[[], bool] = bool,
) -> Iterator[StepReport]:
    """Train from `run.step` to the last step, and yield a report after each step.

    Args:
        run: the run.
        p: its params.
        batch_at: makes this process's share of the batch of a step.
        lag: how many steps the host may run ahead of the reports; None for 0 on a CPU and 1 elsewhere. It is 0 before
            a checkpoint or a validation grid, so that no step with a non-finite loss is saved.
        is_stopping: called once after each step, by all processes; if true, no further step is done. Never by default.
        is_pausing: called as `is_stopping`; if true, all reports are yielded before the next step, as before a
            checkpoint. Never by default.

    Raises:
        TamingError: the loss or the gradient norm is not finite.
    """
    if lag is None:  # on a CPU the host cannot run ahead
        lag = 0 if run.accelerator.device.type == "cpu" else 1
    pending = deque[PendingStep]()
    for step in updates(run, p, batch_at, check=lag == 0):
        pending.append(step)
        completed, stop, asked = step.step + 1, is_stopping(), is_pausing()
        pause = (
            stop
            or asked
            or completed == p.steps
            or is_due(completed, p.save_every, p.steps)
            or is_due(completed, p.validation.every, p.steps)
        )
        while len(pending) > (0 if pause else lag):
            yield report_of(pending.popleft(), p)
        if stop:
            return


def updates(run: Run, p: TrainParams, batch_at: BatchAt, check: bool) -> Iterator[PendingStep]:
    """Update the weights step by step; with `check` a step that is not finite raises before it changes any."""
    for step in range(run.step, p.steps):
        rate = learning_rate_at(step, p)
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = batch_at(step)
        with fast_kernels(p.precision):
            sums, has_samples = forward_backward(run, batch, noise_for_batch(run, batch, step, p), p)
        distributed.all_reduce_gradients(run.weights, run.processes)
        figures = torch.cat([distributed.all_reduce(sums, run.processes), clip_gradients(run, p).reshape(1)])
        pending = pending_step(step, batch.row_ids, rate, figures, has_samples)
        if check:
            report_of(pending, p)
        if any(weight.grad is not None for weight in run.weights):  # a scaler needs at least one gradient
            run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        if run.ema is not None:
            run.ema.step(run.weights)
        run.step = step + 1
        yield pending


def clip_gradients(run: Run, p: TrainParams) -> Tensor:
    """Clip the gradients; returns their norm before clipping.

    The norm is 0 without any gradient: an encoder that trains alone gets none from a batch without an object.
    """
    with_gradient = [weight for weight in run.weights if weight.grad is not None]
    if not with_gradient:
        return torch.zeros((), device=run.accelerator.device)
    if run.sharded:
        return distributed.clip_sharded_gradients(with_gradient, p.max_grad_norm)
    accelerator: Any = run.accelerator
    return accelerator.clip_grad_norm_(with_gradient, p.max_grad_norm)


def pending_step(
    step: int, row_ids: tuple[str, ...], rate: float, figures: Tensor, has_samples: dict[str, bool]
) -> PendingStep:
    """A step with an asynchronous copy of its figures to the host."""
    if figures.device.type != "cuda":
        return PendingStep(step, row_ids, rate, figures, has_samples, None)
    host_copy = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True).copy_(figures, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return PendingStep(step, row_ids, rate, host_copy, has_samples, event)


def report_of(pending: PendingStep, p: TrainParams) -> StepReport:
    """The report of a step; waits for its figures.

    Raises:
        TamingError: the loss or the gradient norm is not finite.
    """
    if pending.event is not None:
        pending.event.synchronize()
    figures: Any = pending.figures
    terms: list[float]
    *terms, norm = figures.tolist()
    sums = dict(zip(TERMS, terms, strict=True))
    terms_or_none = {name: sums[name] if has_samples else None for name, has_samples in pending.has_samples.items()}
    losses = Losses(total_loss(**sums, p=p), sums["denoising"], **terms_or_none)
    require_finite("loss", losses.loss, pending)
    if p.precision != "fp16":  # its scaler skips such a step, and lowers the loss scale
        require_finite("gradient norm", norm, pending)
    return StepReport(pending.step + 1, losses, pending.learning_rate, norm)


def measure_seconds(reports: Iterator[StepReport]) -> Iterator[tuple[StepReport, float]]:
    """Each report with the seconds that its step took, without the time between the reports."""
    start = time.perf_counter()
    for report in reports:
        yield report, time.perf_counter() - start
        start = time.perf_counter()


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether to do something after this step that is done every `every` steps and after the last; never if it is 0."""
    return every > 0 and (step % every == 0 or step == steps)


def noise_for_batch(run: Run, batch: Batch, step: int, p: TrainParams) -> diffusion.Noise:
    """This process's share of the noise of a step, in the shape of the batch's latents."""
    family = run.model.family
    count, _, height, width = batch.mask.shape
    shape = (
        count * run.processes.world_size,
        family.latent_channels,
        height // family.vae_scale_factor,
        width // family.vae_scale_factor,
    )
    schedule = run.model.schedule
    noise = diffusion.noise_at(step, shape, schedule, p.seed, p.offset_noise, p.guidance, p.timestep_power)
    return diffusion.slice_noise(noise, run.processes.share(shape[0]), torch.device("cpu"))


def require_finite(what: str, value: float, pending: PendingStep) -> None:
    """Raises TamingError if the value is not finite."""
    if not math.isfinite(value):
        raise TamingError(f"The {what} is {value} in step {pending.step + 1}, with rows {', '.join(pending.row_ids)}. "
                          "Lower train.learning_rate, or set train.precision to fp32.")  # fmt: skip


def forward_backward(
    run: Run, batch: Batch, noise: diffusion.Noise, p: TrainParams
) -> tuple[Float[Tensor, " terms"], dict[str, bool]]:
    """Accumulate the gradients of a batch over micro-batches; they equal those of the batch as a whole.

    Returns the loss terms in the order of `TERMS`, on the device, and which of them have a sample weight above 0.
    Nothing in here synchronizes with the device, so that the host can run ahead.
    """
    processes, device = run.processes, run.accelerator.device
    accelerator: Any = run.accelerator
    counts, timesteps = processes.gather(torch.tensor(batch.object_counts)), processes.gather(noise.timesteps)
    all_weights = compute_sample_weights(run.model, run.identity, counts, timesteps, p)
    sample_weights, size = all_weights.slice(processes.share(len(counts))), len(batch.row_ids)
    # With a sharded denoiser all processes must run the same computation at the same time.
    any_object = (counts > 0).view(processes.world_size, -1, p.micro_batch_size).any(2).any(0) if run.sharded else None
    sums = torch.zeros(len(TERMS), device=device)
    for number, start in enumerate(range(0, size, p.micro_batch_size)):
        rows = slice(start, start + p.micro_batch_size)
        part, noise_slice = batch_slice(batch, rows, device), diffusion.slice_noise(noise, rows, device)
        force_encoder = any_object is not None and bool(any_object[number])
        # Casts of sharded weights are freed with them, where else they stay for the whole pass.
        with autocast(run.accelerator, cache_casts=not run.sharded):
            terms = compute_loss_terms(
                run.model, run.identity, part, noise_slice, sample_weights.slice(rows), p, force_encoder
            )
        loss = total_loss(terms.denoising, terms.identity, terms.localization, p)
        if loss.requires_grad:  # it does not without an object, if the encoder trains alone
            accelerator.backward(loss)
        sums += torch.stack([getattr(terms, name).detach().float() for name in TERMS])
    return sums, {n: bool(getattr(all_weights, n).any()) for n in ("identity", "localization")}


def autocast(accelerator: Accelerator, cache_casts: bool = True) -> AbstractContextManager[Any]:
    """Mixed precision on the device, as `accelerator.autocast`, which however changes the environment at every call.

    It empties `os.environ` and fills it again. A thread of the data loader that calls getenv meanwhile, as libjpeg does
    for every image, reads freed memory.

    Args:
        accelerator: names device and precision; of "no" nothing changes.
        cache_casts: keep the cast of a weight until the block ends.
    """
    dtype = DTYPES.get(accelerator.mixed_precision)
    if dtype is None:
        return nullcontext()
    return torch.autocast(accelerator.device.type, dtype, cache_enabled=cache_casts)


def trained_weights(run: Run) -> dict[str, dict[str, Tensor]]:
    """All trained weights, on the CPU; all processes must call it if weights are sharded."""
    return {
        part: {n: distributed.full_tensor(w).clone() for n, w in weights.items()}
        for part, weights in run.trained.items()
    }


def load_results(results: Mapping[str, Mapping[str, Tensor]], model: SubjectModel, p: TrainParams) -> None:
    """Load the trained weights into a fresh model from the pipeline that the run started from.

    Its frozen weights have full precision and are not sharded, unlike those of the run's model.
    """
    if p.lora is not None:
        lora.add_lora(model.family.denoiser, p.lora, p.seed)
    for part, weights in results.items():
        parameters = dict(model.networks[part].named_parameters())
        for name, weight in weights.items():
            parameters[name].data = weight
