"""Timesteps, noised latents, what the denoiser should say, and the clean image it implies (DDPM, Ho et al., 2020)."""

import inspect
from dataclasses import dataclass, fields
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.seeds import seed_for


@dataclass(frozen=True)
class Noise:
    """All that is random in one step, for a whole batch, so that micro-batches cannot change it; on the CPU."""

    timesteps: Int[Tensor, " batch"]
    encoding: Float[Tensor, "batch channels height width"]  # of the sample from the autoencoder's posterior
    diffusion: Float[Tensor, "batch channels height width"]  # eps


def noise_at(step: int, shape: tuple[int, int, int, int], train_timesteps: int, seed: int, offset: float) -> Noise:
    """The noise of one step, for latents of this shape (B, C, h, w).

    Args:
        offset: how much of the noise is one number per image and channel, so that a model learns to change an image's
            brightness as a whole (Guttenberg, "Diffusion with offset noise", 2023).
    """
    encoding, diffusion = (torch.randn(shape, generator=_generator(seed, name, step)) for name in ("encoding", "noise"))
    level = torch.randn(*shape[:2], 1, 1, generator=_generator(seed, "offset", step))
    timesteps = torch.randint(train_timesteps, shape[:1], generator=_generator(seed, "timestep", step))
    return Noise(timesteps, encoding, diffusion + offset * level)


def _generator(seed: int, purpose: str, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, purpose, step))


def part_of(noise: Noise, rows: slice, device: torch.device) -> Noise:
    """Some rows of the noise, on the device."""
    return Noise(**{f.name: getattr(noise, f.name)[rows].to(device) for f in fields(Noise)})


def schedule_like(scheduler: Any) -> DDPMScheduler:
    """The noise schedule that a model was trained with, whatever scheduler it samples with.

    Raises:
        TamingError: the model is no model of added noise, such as one of flow matching.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        name = type(scheduler).__name__
        raise TamingError(
            f"{name} has no noise schedule to train with. Use a base whose scheduler is like DDIMScheduler."
        )
    return DDPMScheduler.from_config(scheduler.config)  # pyright: ignore[reportReturnType]


def ending_in_noise(scheduler: Any) -> Any:
    """The scheduler with a last step of noise alone (zero terminal SNR), where sampling starts (Lin et al., 2024).

    Raises:
        TamingError: it cannot be so: its class has no such key, or the model predicts the noise, which says nothing of
            the image where there is noise alone; or it is so already.
    """
    name = type(scheduler).__name__
    if "rescale_betas_zero_snr" not in inspect.signature(type(scheduler)).parameters:
        raise TamingError(f"{name} cannot end in pure noise. Set train.zero_terminal_snr to false, or give the base a "
                          "scheduler like DDIMScheduler.")  # fmt: skip
    if scheduler.config["prediction_type"] == "epsilon":
        raise TamingError("A base that predicts the noise cannot learn from pure noise. Set train.zero_terminal_snr to "
                          "false, or use a base of v_prediction.")  # fmt: skip
    if float(scheduler.alphas_cumprod[-1]) < 1e-6:  # EulerDiscreteScheduler leaves 2**-24, for it divides by it
        raise TamingError(f"The noise schedule of the base's {name} ends in pure noise already. Set "
                          "train.zero_terminal_snr to false.")  # fmt: skip
    return type(scheduler).from_config(scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")


def target_of(
    schedule: DDPMScheduler, latents: Float[Tensor, "batch channels height width"], noise: Noise
) -> Float[Tensor, "batch channels height width"]:
    """What the denoiser should say of the noised latents: the noise, the velocity (Salimans and Ho, 2022), or z_0."""
    kind = schedule.config["prediction_type"]
    if kind == "epsilon":
        return noise.diffusion
    if kind == "v_prediction":
        return schedule.get_velocity(latents, noise.diffusion, noise.timesteps)  # pyright: ignore[reportArgumentType]
    return latents


def noised(
    schedule: DDPMScheduler, latents: Float[Tensor, "batch channels height width"], noise: Noise
) -> Float[Tensor, "batch channels height width"]:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Ho et al., equation 4)."""
    return schedule.add_noise(latents, noise.diffusion, noise.timesteps)  # pyright: ignore[reportArgumentType]


def alpha_bar(schedule: DDPMScheduler, timesteps: Int[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
    """abar_t, the share of signal in the noised latent's variance; 0 at the last step of a zero-SNR schedule."""
    return schedule.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)


def clean_estimate(
    schedule: DDPMScheduler,
    noised_latents: Float[Tensor, "batch channels height width"],
    predicted: Float[Tensor, "batch channels height width"],
    timesteps: Int[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """The one-step estimate of z_0; for a prediction of eps it needs abar_t > 0 (Ho et al., equation 15)."""
    signal = alpha_bar(schedule, timesteps)
    kind = schedule.config["prediction_type"]
    if kind == "epsilon":
        return (noised_latents - (1 - signal).sqrt() * predicted) / signal.sqrt()
    if kind == "v_prediction":
        return signal.sqrt() * noised_latents - (1 - signal).sqrt() * predicted
    return predicted
