"""Train the autoencoder of `mini`: photos to latents a quarter as wide and high, and back.

Example:  python pipelines/mini/autoencoder.py
          python pipelines/mini/autoencoder.py --measure pipelines/mini/base/vae    # measure, train nothing
"""

import json
from collections.abc import Iterator, Sequence
from math import gcd
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import schooling
import torch
import torch.nn.functional as F
import typer
from devices import aside, half, ready
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from schooling import Figures, Lesson, PlanBook
from torch import Tensor

from taming_core.seeds import seed_for
from taming_core.training.checkpoint import rows_state
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan
from taming_core.world.render import composite_on_grey, draw, references

AT_ONCE = 32  # photos in memory where nothing is learnt; changes no figure but by rounding


class AutoencoderParams(Lesson):
    """Photos and losses of the autoencoder."""

    size: PositiveInt  # pixels of a photo's side
    widths: list[PositiveInt]  # channels per level, encoder and decoder alike; each level but the first halves the side
    latent_channels: PositiveInt
    chances: Chances
    alone: float  # share of a batch that shows a thing alone on grey, as the object encoder sees it
    gradient_weight: PositiveFloat
    gradient_scales: PositiveInt
    kl_weight: PositiveFloat
    workers: int  # processes that draw plans ahead
    measured: PositiveInt  # photos per measurement


def new_autoencoder(p: AutoencoderParams) -> AutoencoderKL:
    """An untrained autoencoder."""
    shape: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * len(p.widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(p.widths),
        "block_out_channels": tuple(p.widths), "layers_per_block": 1, "norm_num_groups": gcd(16, *p.widths),
        "latent_channels": p.latent_channels, "sample_size": p.size,
    }  # fmt: skip
    return AutoencoderKL(**shape)


def seen(pictures: Pictures, wanted: Sequence[Plan], size: int, alone: float = 0.0) -> Float[Tensor, "n 3 size size"]:
    """The photos of plans in [-1, 1]; the first ones, a share of `alone`, show their thing by itself."""
    count = round(len(wanted) * alone)
    parts = [composite_on_grey(references(pictures, wanted[:count], size))] if count else []
    if count < len(wanted):
        parts.append(draw(pictures, wanted[count:], size)[0])
    return torch.cat(parts) * 2 - 1


def posterior(vae: AutoencoderKL, images: Float[Tensor, "n 3 h w"]) -> DiagonalGaussianDistribution:
    """q(z | image), in full precision whatever the network computes in."""
    moments = vae.encode(images).latent_dist.parameters  # pyright: ignore[reportAttributeAccessIssue]
    return DiagonalGaussianDistribution(moments.float())


def decoded(vae: AutoencoderKL, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
    """Images in about [-1, 1]."""
    return vae.decode(latents).sample  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def gradient_error(difference: Float[Tensor, "n 3 h w"], scales: int) -> Tensor:
    """Mean absolute slope of what is wrong, over several scales: it keeps edges where they are."""
    found = difference.new_zeros(())
    for _ in range(scales):
        found = found + (difference[..., 1:] - difference[..., :-1]).abs().mean()
        found = found + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        difference = F.avg_pool2d(difference, 2)
    return found


def loss_of(vae: AutoencoderKL, images: Float[Tensor, "n 3 h w"], p: AutoencoderParams) -> tuple[Tensor, Figures]:
    """L1 + MSE + gradients + KL to the standard normal (Kingma and Welling, 2014, appendix B), all means."""
    with half(images.device.type):
        latents = posterior(vae, images)
        again = decoded(vae, latents.sample())
    wrong = again.float() - images
    squared = wrong.square().mean()
    kl = 0.5 * (latents.mean.square() + latents.var - 1 - latents.logvar).mean()
    loss = wrong.abs().mean() + squared + p.gradient_weight * gradient_error(wrong, p.gradient_scales)
    return loss + p.kl_weight * kl, {"mse": squared, "kl": kl}


def train(
    vae: AutoencoderKL, world: World, pictures: Pictures, device: str, p: AutoencoderParams, state: Path
) -> Iterator[schooling.Report]:
    """Yield a report per step; then the averaged weights are in place."""
    vae.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    plans_at = schooling.opened(PlanBook(world, p, lambda _: p.chances), p.steps, p.workers)

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        wanted, waited = plans_at(step)
        with aside(device) as kept:
            images = kept(seen(pictures, wanted, p.size, p.alone).contiguous(memory_format=torch.channels_last))
        loss, figures = loss_of(vae, images, p)
        return loss, {**figures, "waited": waited}

    yield from schooling.learn(schooling.begin({"vae": vae}, p), loss_at, p, state)


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, pictures: Pictures, wanted: Sequence[Plan], size: int) -> float:
    """One over the standard deviation of latents, so that the denoiser meets latents of variance 1."""
    chunks = [wanted[i : i + AT_ONCE] for i in range(0, len(wanted), AT_ONCE)]
    found = [posterior(vae, seen(pictures, chunk, size)) for chunk in chunks]
    variance = torch.cat([q.mean for q in found]).var() + torch.cat([q.var for q in found]).mean()
    return float(variance**-0.5)


@torch.no_grad()
def fidelity(vae: AutoencoderKL, pictures: Pictures, wanted: Sequence[Plan], size: int) -> list[float]:
    """Decibels of each photo, coded and decoded: peak signal over noise of RGB in [0, 1]."""
    found: list[float] = []
    for i in range(0, len(wanted), AT_ONCE):
        images = seen(pictures, wanted[i : i + AT_ONCE], size)
        again = decoded(vae, posterior(vae, images).mode())
        noise = ((again.clamp(-1, 1) - images) / 2).square().mean((1, 2, 3))
        found += (-10 * noise.log10()).tolist()
    return found


def measure(folder: Path, world: World, pictures: Pictures, device: str, p: AutoencoderParams) -> dict[str, Any]:
    """How well stored weights keep photos of things that no training saw."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval()  # pyright: ignore
    wanted = plans(world, seed_for(p.seed, "autoencoder/test", 0), 0, p.measured, "unseen-concepts", p.chances)
    decibels = fidelity(vae, pictures, wanted, p.size)
    names = [world.cutouts[plan.objects[0].cutout].name for plan in wanted]
    styles = {plan.style: [d for d, other in zip(decibels, wanted, strict=True) if other.style == plan.style]
              for plan in wanted}  # fmt: skip
    return {
        "weights": sum(w.numel() for w in vae.parameters()),
        "photos": len(wanted),
        **schooling.estimated("psnr", decibels, names),
        **{f"psnr/{style}": float(np.mean(found)) for style, found in sorted(styles.items())},
    }


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path("out/mini/autoencoder"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    measure_only: Annotated[Path | None, typer.Option("--measure", help="Print figures of these weights.")] = None,
) -> None:
    """Train, save and measure the autoencoder; to resume, run the same command again."""
    p, device = schooling.section(AutoencoderParams, "autoencoder", params), ready(device)
    artwork = load_world(world)
    pictures = load_pictures(artwork, device)
    if measure_only:
        print(json.dumps(measure(measure_only, artwork, pictures, device, p), indent=2))
        return
    torch.manual_seed(seed_for(p.seed, "autoencoder/weights", 0))
    vae, state = new_autoencoder(p), schooling.state_folder("autoencoder", p, rows_state(world))
    schooling.watch(train(vae, artwork, pictures, device, p, state), "autoencoder", p.steps, state)
    sample = plans(artwork, seed_for(p.seed, "autoencoder/scale", 0), 0, p.measured, chances=p.chances)
    vae.eval().register_to_config(scaling_factor=scaling_factor(vae, pictures, sample, p.size))
    schooling.keep(vae, out)
    schooling.write_metrics(out, {"steps": p.steps, "batch_size": p.batch_size,
                                  **measure(out, artwork, pictures, device, p)})  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
