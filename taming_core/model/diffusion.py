"""Timesteps, noised latents, training targets, and the estimate of the clean latents.

For a diffusion process (DDPM, Ho et al., 2020) or flow matching (Lipman et al., 2023), as the base model was trained.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.bases.family import dynamic_shift, is_flow_matching
from taming_core.errors import TamingError
from taming_core.seeds import seed_for

Schedule = DDPMScheduler | FlowMatchEulerDiscreteScheduler


@dataclass(frozen=True)
class Noise:
    """All random numbers of one step, drawn for the whole batch, so that they do not depend on micro-batches."""

    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"]  # flow matching: sigma * num_train_timesteps
    posterior: Float[Tensor, "batch channels height width"]  # for the sample from the autoencoder's posterior
    diffusion: Float[Tensor, "batch channels height width"]  # eps
    guidance: Float[Tensor, " batch"] | None = None  # the scale that a guidance-distilled denoiser reads


def noise_at(
    step: int,
    shape: tuple[int, int, int, int],
    schedule: Schedule,
    seed: int,
    offset: float,
    guidance: float | Sequence[float] | None = None,
    power: float = 1.0,
) -> Noise:
    """The noise of one step, on the CPU.

    Args:
        step: counted from 0.
        shape: of the latents, (B, C, h, w).
        schedule: the noise schedule.
        seed: of the training.
        offset: weight of noise that is constant over each channel of an image, so that the model learns to change the
            mean brightness (Guttenberg, "Diffusion with offset noise", 2023).
        guidance: the scale for a guidance-distilled denoiser, or the ends of a range; None for any other.
        power: see `timesteps_at`.
    """
    encoding, diffusion = (torch.randn(shape, generator=_generator(seed, name, step)) for name in ("encoding", "noise"))
    level = torch.randn(*shape[:2], 1, 1, generator=_generator(seed, "offset", step))
    timesteps = timesteps_at(shape, schedule, _generator(seed, "timestep", step), power)
    scales = None if guidance is None else guidance_at(shape[0], guidance, _generator(seed, "guidance", step))
    return Noise(timesteps, encoding, diffusion + offset * level, scales)


def guidance_at(count: int, guidance: float | Sequence[float], generator: torch.Generator) -> Float[Tensor, " {count}"]:
    """One guidance scale for all samples, or for each one from the range, with equal probability."""
    low, high = guidance if isinstance(guidance, Sequence) else (guidance, guidance)
    return low + (high - low) * torch.rand(count, generator=generator)


def timesteps_at(
    shape: tuple[int, int, int, int], schedule: Schedule, generator: torch.Generator, power: float = 1.0
) -> Tensor:
    """Timesteps (B,) for latents of this shape: 1 - u^power of all, or for flow matching logit-normal and then shifted.

    With power 1 all are drawn equally often, with more the noisy ones more often, where the layout is settled; 3 is the
    cubic sampling of T2I-Adapter (Mou et al., 2024, section 3.4).

    Source: Esser et al., 2024, "Scaling Rectified Flow Transformers", equation 19 and section 5.3.2.
    """
    steps = schedule.config["num_train_timesteps"]
    if isinstance(schedule, DDPMScheduler):
        if power == 1:
            return torch.randint(steps, shape[:1], generator=generator)
        return ((1 - torch.rand(shape[:1], generator=generator) ** power) * steps).long().clamp(max=steps - 1)
    sigma = torch.randn(shape[:1], generator=generator).sigmoid()
    return shift_sigma(schedule, sigma, shape) * steps


def shift_sigma(
    schedule: FlowMatchEulerDiscreteScheduler, sigma: Float[Tensor, " batch"], shape: tuple[int, int, int, int]
) -> Float[Tensor, " batch"]:
    """Apply the schedule's timestep shift to `sigma` in [0, 1]; larger images get more noise."""
    config = schedule.config
    if config.get("use_dynamic_shifting", False):
        return schedule.time_shift(dynamic_shift(config, shape), 1.0, sigma)
    shift = config.get("shift", 1.0)
    return shift * sigma / (1 + (shift - 1) * sigma)


def _generator(seed: int, purpose: str, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, purpose, step))


def slice_noise(noise: Noise, rows: slice, device: torch.device) -> Noise:
    """The noise of some rows of the batch, on the device."""
    values: dict[str, Any] = {f.name: getattr(noise, f.name) for f in fields(Noise)}
    sliced: Any = {n: v if v is None else v[rows].to(device, non_blocking=True) for n, v in values.items()}
    return Noise(**sliced)


def noise_schedule_of(scheduler: Any) -> Schedule:
    """The noise schedule that a model was trained with, independent of the scheduler that it samples with.

    Raises:
        TamingError: the scheduler is neither for a diffusion process nor for flow matching.
    """
    schedule_class: Any = FlowMatchEulerDiscreteScheduler if is_flow_matching(scheduler) else DDPMScheduler
    if is_flow_matching(scheduler):
        config = dict(scheduler.config)
        shift = {"shift": config["flow_shift"]} if config.get("use_flow_sigmas") else {}
        return schedule_class.from_config(config, **shift)
    if not hasattr(scheduler, "alphas_cumprod"):
        name = type(scheduler).__name__
        raise TamingError(
            f"{name} has no noise schedule to train with. Use a base whose scheduler is like DDIMScheduler or "
            "FlowMatchEulerDiscreteScheduler."
        )
    return schedule_class.from_config(scheduler.config)


def with_zero_terminal_snr(scheduler: Any) -> Any:
    """The scheduler with zero terminal SNR: the last timestep, where sampling starts, is pure noise (Lin et al., 2024).

    Raises:
        TamingError: the scheduler's class does not support it; the model predicts the noise, which holds no information
            about the image at zero SNR; or the schedule has zero terminal SNR already.
    """
    scheduler_class: Any = scheduler.__class__
    name = scheduler_class.__name__
    if "rescale_betas_zero_snr" not in inspect.signature(scheduler_class).parameters:
        raise TamingError(f"{name} cannot end in pure noise. Set train.zero_terminal_snr to false, or give the base a "
                          "scheduler like DDIMScheduler.")  # fmt: skip
    if scheduler.config["prediction_type"] == "epsilon":
        raise TamingError("A base that predicts the noise cannot learn from pure noise. Set train.zero_terminal_snr to "
                          "false, or use a base of v_prediction.")  # fmt: skip
    if has_zero_terminal_snr(scheduler):
        raise TamingError(f"The noise schedule of the base's {name} ends in pure noise already. Set "
                          "train.zero_terminal_snr to false.")  # fmt: skip
    return scheduler_class.from_config(scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")


def has_zero_terminal_snr(scheduler: Any) -> bool:
    """Whether the noise schedule of a diffusion process ends in pure noise."""
    # EulerDiscreteScheduler ends at 2**-24, since it divides by it.
    return hasattr(scheduler, "alphas_cumprod") and float(scheduler.alphas_cumprod[-1]) < 1e-6


def prediction_type(schedule: Schedule) -> str:
    """What the denoiser predicts: `epsilon`, `v_prediction` or `sample`, or `flow` for flow matching."""
    return schedule.config["prediction_type"] if isinstance(schedule, DDPMScheduler) else "flow"


def sigmas(schedule: Schedule, timesteps: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
    """sigma in [0, 1], the weight of the noise in the latents of flow matching."""
    return (timesteps / schedule.config["num_train_timesteps"]).view(-1, 1, 1, 1)


def training_target(
    schedule: Schedule, latents: Float[Tensor, "batch channels height width"], noise: Noise
) -> Float[Tensor, "batch channels height width"]:
    """The training target of the denoiser output.

    The noise, the velocity (Salimans and Ho, 2022), z_0, or the flow eps - z_0 (Esser et al., 2024, section 2).
    """
    kind = prediction_type(schedule)
    if kind == "flow":
        return noise.diffusion - latents
    if kind == "epsilon":
        return noise.diffusion
    if kind == "v_prediction":
        signal = alpha_bar(schedule, noise.timesteps)
        return signal.sqrt() * noise.diffusion - (1 - signal).sqrt() * latents
    return latents


def add_noise(
    schedule: Schedule, latents: Float[Tensor, "batch channels height width"], noise: Noise
) -> Float[Tensor, "batch channels height width"]:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Ho et al., equation 4), or (1 - sigma) z_0 + sigma eps."""
    if not isinstance(schedule, DDPMScheduler):
        sigma = sigmas(schedule, noise.timesteps)
        return (1 - sigma) * latents + sigma * noise.diffusion
    # Not by schedule.add_noise, which moves its table to the device synchronously.
    signal = alpha_bar(schedule, noise.timesteps)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise.diffusion


def alpha_bar(
    schedule: Schedule, timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"]
) -> Float[Tensor, "batch 1 1 1"]:
    """abar_t, the share of signal in the noised latents' variance; 0 at the last timestep with zero terminal SNR."""
    if not isinstance(schedule, DDPMScheduler):
        sigma = sigmas(schedule, timesteps)
        return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
    return schedule.alphas_cumprod.to(timesteps.device, non_blocking=True)[timesteps].view(-1, 1, 1, 1)


def estimate_clean(
    schedule: Schedule,
    noised_latents: Float[Tensor, "batch channels height width"],
    predicted: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"] | Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """The one-step estimate of z_0; with epsilon prediction it needs abar_t > 0 (Ho et al., equation 15)."""
    kind = prediction_type(schedule)
    if kind == "flow":
        return noised_latents - sigmas(schedule, timesteps) * predicted
    signal = alpha_bar(schedule, timesteps)
    if kind == "epsilon":
        return (noised_latents - (1 - signal).sqrt() * predicted) / signal.sqrt()
    if kind == "v_prediction":
        return signal.sqrt() * noised_latents - (1 - signal).sqrt() * predicted
    return predicted
