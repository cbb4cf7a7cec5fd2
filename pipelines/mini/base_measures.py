"""Measurements of the base model of `mini`: held-out loss, and zero-shot accuracy of the images it draws."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipelines.mini.autoencoder import decode, render_images
from pipelines.mini.base_model import BaseParams, encode_images, velocity_errors
from pipelines.mini.clip_model import Clip, concept_prompts, is_top, pooled, similarity
from pipelines.mini.metrics import share_with_interval, with_interval
from pipelines.mini.world_data import WorldData
from taming_core.bases.families import family_of
from taming_core.bases.load import load_base
from taming_core.evaluation.protocol import scene_prompt
from taming_core.images.draw import load_scheduler
from taming_core.model.diffusion import Noise, noise_schedule_of
from taming_core.params.sections import Sampling
from taming_core.seeds import seed_for
from taming_core.world.artwork import World
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan

BATCH = 32  # photos at once without gradients; changes metrics only by rounding
PLAIN = Chances(recolor=0, style=0, two_objects=0, silent=0, attributes=0)  # "a photo of a squirrel on the beach"

Images = Float[Tensor, "n 3 size size"]  # in [-1, 1]


def measure(folder: Path, clip: Clip, data: WorldData, sampling: Sampling, p: BaseParams) -> dict[str, Any]:
    """Loss on held-out designs, and accuracy of images drawn of trained concepts, with that of real photos."""
    parts = load_base(str(folder))
    for name in ("vae", "text_encoder", "unet"):
        parts[name].to(data.device).eval().requires_grad_(False)
    world, seed = data.world, seed_for(p.seed, "base/test", 0)
    unseen = plans(world, seed, 0, p.eval_photos, "unseen-designs", p.chances)
    trained = plans(world, seed, 0, p.prompts, "train", PLAIN)
    losses = held_out_losses(parts, data, unseen, p)
    photos = (render_images(data.pictures, trained[i : i + BATCH], p.size) for i in range(0, len(trained), BATCH))
    drawn = draw_images(parts, [q.caption for q in trained], seed, sampling, data.device)
    return {
        "weights": sum(w.numel() for w in parts["unet"].parameters()),
        **with_interval("loss", losses.mean(1).tolist(), [world.cutouts[q.objects[0].cutout].name for q in unseen]),
        **{f"loss/{t}": mean for t, mean in zip(p.timesteps, losses.mean(0).tolist(), strict=True)},
        **accuracies(clip, drawn, world, trained, "drawn"),
        **accuracies(clip, photos, world, trained, "real"),
    }


def text_states(parts: dict[str, Any], prompts: Sequence[str]) -> Float[Tensor, "batch length width"]:
    """Text encoder states of prompts."""
    family = family_of(parts)
    return family.text(family.token_ids(prompts).to(parts["text_encoder"].device)).states


@torch.no_grad()
def held_out_losses(
    parts: dict[str, Any], data: WorldData, sample: Sequence[Plan], p: BaseParams
) -> Float[Tensor, "photos timesteps"]:
    """Velocity error of each photo at each timestep, with fixed noise."""
    schedule, losses = noise_schedule_of(parts["scheduler"]), list[Tensor]()
    torch.manual_seed(seed_for(p.seed, "base/noise", 0))
    for i in range(0, len(sample), BATCH):
        chunk = sample[i : i + BATCH]
        latents = encode_images(parts["vae"], render_images(data.pictures, chunk, p.size))
        states = text_states(parts, [plan.caption for plan in chunk])
        times = (torch.full((len(chunk),), t, device=data.device) for t in p.timesteps)
        noises = [Noise(t, latents, torch.randn_like(latents)) for t in times]
        losses.append(torch.stack([velocity_errors(parts["unet"], schedule, states, latents, n) for n in noises], 1))
    return torch.cat(losses).cpu()


@torch.no_grad()
def draw_images(parts: dict[str, Any], prompts: Sequence[str], seed: int, s: Sampling, device: str) -> Iterator[Images]:
    """Images of prompts in batches; each has its own noise seed, so the batch size does not change it."""
    unet, vae = parts["unet"], parts["vae"]
    for first in range(0, len(prompts), s.batch_size):
        batch = list(prompts[first : first + s.batch_size])
        seeds = [seed_for(seed, "base/image", first + i) for i in range(len(batch))]
        latents = denoise(parts, text_states(parts, [*[""] * len(batch), *batch]), start_noise(unet, seeds), s, device)
        yield decode(vae, latents / vae.config["scaling_factor"]).clamp(-1, 1)


def start_noise(unet: Any, seeds: Sequence[int]) -> Float[Tensor, "n c h w"]:
    """One noise latent per seed, on the CPU."""
    shape = (unet.config["in_channels"], unet.config["sample_size"], unet.config["sample_size"])
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def denoise(
    parts: dict[str, Any], text: Float[Tensor, "2n length width"], noise: Float[Tensor, "n c h w"], s: Sampling,
    device: str,
) -> Float[Tensor, "n c h w"]:  # fmt: skip
    """Run the sampler with classifier-free guidance; `text` holds the empty prompts, then the prompts."""
    scheduler: Any = load_scheduler(s.scheduler, parts["scheduler"])
    scheduler.set_timesteps(s.steps, device=device)
    latents = noise.to(device) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents, latents]), t)
        uncond, cond = parts["unet"](model_input, t, text, return_dict=False)[0].chunk(2)
        latents = scheduler.step(uncond + s.guidance_text * (cond - uncond), t, latents).prev_sample
    return latents


def accuracies(
    clip: Clip, images: Iterator[Images], world: World, prompts: Sequence[Plan], kind: str
) -> dict[str, float]:
    """How often CLIP picks the prompt's concept among all trained ones, and its scene among all scenes."""
    names, own = sorted({c.name for c in world.cutouts if c.split == "train"}), [q.objects[0].words for q in prompts]
    side = clip.model.config.vision_config.image_size
    with torch.no_grad():
        features = torch.cat([pooled(clip, F.interpolate(x, side)) for x in images])
    correct = {
        "class": is_top(similarity(clip, features, concept_prompts(names)), [names.index(name) for name in own]),
        "scene": is_top(similarity(clip, features, [scene_prompt(s) for s in world.scenes]),
                        [world.scenes.index(q.scene) for q in prompts]),
    }  # fmt: skip
    entries = [share_with_interval(f"{kind}/{name}", values, own) for name, values in correct.items()]
    return {k: v for entry in entries for k, v in entry.items()}
