"""Train the autoencoder of `mini`: photos to latents at a quarter of the resolution, and back.

Example:  python -m pipelines.mini.autoencoder
          python -m pipelines.mini.autoencoder --measure pipelines/mini/base/vae    # measure, train nothing
"""

from collections.abc import Iterator, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from pipelines.mini.devices import autocast, side_stream
from pipelines.mini.metrics import with_interval
from pipelines.mini.options import DeviceName, MeasureOnly, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, TrainingParams, load_section
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, save_half_precision, train, train_and_measure
from pipelines.mini.world_data import PlanDataset, WorldData, batch_reader, load_data
from taming_core.fingerprints import folder_fingerprint
from taming_core.seeds import seed_for
from taming_core.world.artwork import Pictures
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan
from taming_core.world.render import composite_on_grey, draw, references

BATCH = 32  # photos at once without gradients; changes metrics only by rounding


class AutoencoderParams(TrainingParams):
    """Architecture, photos and losses of the autoencoder."""

    size: PositiveInt  # side of a photo in pixels
    widths: list[PositiveInt]  # channels per level of encoder and decoder; each level but the first halves the side
    latent_channels: PositiveInt
    chances: Chances
    reference_share: float  # of a batch: reference views on grey, which the object encoder sees
    gradient_weight: PositiveFloat
    gradient_scales: PositiveInt
    kl_weight: PositiveFloat
    workers: int  # processes that prefetch plans
    eval_photos: PositiveInt


def new_autoencoder(p: AutoencoderParams) -> AutoencoderKL:
    """An untrained autoencoder."""
    shape: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * len(p.widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(p.widths),
        "block_out_channels": tuple(p.widths), "layers_per_block": 1, "norm_num_groups": gcd(16, *p.widths),
        "latent_channels": p.latent_channels, "sample_size": p.size,
    }  # fmt: skip
    return AutoencoderKL(**shape)


def render_images(
    pictures: Pictures, batch: Sequence[Plan], size: int, reference_share: float = 0.0
) -> Float[Tensor, "n 3 size size"]:
    """Render plans to images in [-1, 1]; the first ones, a share of them, as reference views on grey."""
    count = round(len(batch) * reference_share)
    parts = [composite_on_grey(references(pictures, batch[:count], size))] if count else []
    if count < len(batch):
        parts.append(draw(pictures, batch[count:], size)[0])
    return torch.cat(parts) * 2 - 1


def posterior(vae: AutoencoderKL, images: Float[Tensor, "n 3 h w"]) -> DiagonalGaussianDistribution:
    """q(z | image), in full precision under autocast too."""
    moments = vae.encode(images).latent_dist.parameters  # pyright: ignore[reportAttributeAccessIssue]
    return DiagonalGaussianDistribution(moments.float())


def decode(vae: AutoencoderKL, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
    """Images in about [-1, 1]."""
    return vae.decode(latents).sample  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def gradient_error(difference: Float[Tensor, "n 3 h w"], scales: int) -> Tensor:
    """Mean absolute gradient of the error, summed over scales; it keeps edges sharp."""
    total = difference.new_zeros(())
    for _ in range(scales):
        total = total + (difference[..., 1:] - difference[..., :-1]).abs().mean()
        total = total + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        difference = F.avg_pool2d(difference, 2)
    return total


def loss_of(vae: AutoencoderKL, images: Float[Tensor, "n 3 h w"], p: AutoencoderParams) -> tuple[Tensor, Logs]:
    """L1 + MSE + gradients + KL to the standard normal (Kingma and Welling, 2014, appendix B), all means."""
    with autocast(images.device.type):
        latents = posterior(vae, images)
        output = decode(vae, latents.sample())
    error = output.float() - images
    squared = error.square().mean()
    kl = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
    loss = error.abs().mean() + squared + p.gradient_weight * gradient_error(error, p.gradient_scales)
    return loss + p.kl_weight * kl, {"mse": squared, "kl": kl}


def train_autoencoder(vae: AutoencoderKL, data: WorldData, p: AutoencoderParams, state: Path) -> Iterator[Report]:
    """Yield a report per step; at the end the EMA weights are in place."""
    vae.to(data.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    plans_at = batch_reader(PlanDataset(data.world, p, lambda _: p.chances), p.steps, p.workers)

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        batch, waited = plans_at(step)
        with side_stream(data.device) as keep_alive:
            images = render_images(data.pictures, batch, p.size, p.reference_share)
            images = keep_alive(images.contiguous(memory_format=torch.channels_last))
        loss, logs = loss_of(vae, images, p)
        return loss, {**logs, "waited": waited}

    yield from train(new_train_state({"vae": vae}, p), loss_at, p, state)


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, pictures: Pictures, sample: Sequence[Plan], size: int) -> float:
    """One over the standard deviation of latents, so that the denoiser gets latents of variance 1."""
    chunks = [sample[i : i + BATCH] for i in range(0, len(sample), BATCH)]
    posteriors = [posterior(vae, render_images(pictures, chunk, size)) for chunk in chunks]
    variance = torch.cat([q.mean for q in posteriors]).var() + torch.cat([q.var for q in posteriors]).mean()
    return float(variance**-0.5)


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Pictures, sample: Sequence[Plan], size: int) -> list[float]:
    """Peak signal-to-noise ratio in dB of each reconstructed photo, RGB in [0, 1]."""
    decibels: list[float] = []
    for i in range(0, len(sample), BATCH):
        images = render_images(pictures, sample[i : i + BATCH], size)
        output = decode(vae, posterior(vae, images).mode())
        noise = ((output.clamp(-1, 1) - images) / 2).square().mean((1, 2, 3))
        decibels += (-10 * noise.log10()).tolist()
    return decibels


def measure(folder: Path, data: WorldData, p: AutoencoderParams) -> dict[str, Any]:
    """Reconstruction quality of stored weights on held-out concepts, overall and per style."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(data.device).eval()  # pyright: ignore
    seed = seed_for(p.seed, "autoencoder/test", 0)
    sample = plans(data.world, seed, 0, p.eval_photos, "unseen-concepts", p.chances)
    decibels = psnr(vae, data.pictures, sample, p.size)
    names = [data.world.cutouts[plan.objects[0].cutout].name for plan in sample]
    styles = {plan.style: [d for d, other in zip(decibels, sample, strict=True) if other.style == plan.style]
              for plan in sample}  # fmt: skip
    return {
        "weights": sum(w.numel() for w in vae.parameters()),
        "photos": len(sample),
        **with_interval("psnr", decibels, names),
        **{f"psnr/{style}": float(np.mean(values)) for style, values in sorted(styles.items())},
    }


def save(vae: AutoencoderKL, out: Path, data: WorldData, p: AutoencoderParams) -> None:
    """Measure the scaling factor and save the weights in half precision."""
    sample = plans(data.world, seed_for(p.seed, "autoencoder/scale", 0), 0, p.eval_photos, chances=p.chances)
    vae.eval().register_to_config(scaling_factor=scaling_factor(vae, data.pictures, sample, p.size))
    save_half_precision(vae, out)


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    out: OutFolder = OUT / "autoencoder",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure the autoencoder; to resume, run the same command again."""
    p, data = load_section(AutoencoderParams, "autoencoder", params), load_data(world, device)
    stage = Stage(
        name="autoencoder",
        build=lambda: new_autoencoder(p),
        train=lambda vae, state: train_autoencoder(vae, data, p, state),
        save=lambda vae, folder: save(vae, folder, data, p),
        measure=lambda folder: measure(folder, data, p),
        inputs=lambda: [folder_fingerprint(world)],
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
