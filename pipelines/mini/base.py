"""Train the base model of `mini`: text to image, in the latents of its autoencoder, before any taming.

The denoiser predicts velocity on a noise schedule that ends in pure noise (Salimans and Ho, 2022; Lin et al., 2024).
Its text encoder starts from CLIP's.

Example:  python pipelines/mini/base.py
          python pipelines/mini/base.py --measure pipelines/mini/base    # measure, train nothing
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
from autoencoder import decoded, posterior, seen
from clip_model import Clip, concept_prompts, likeness, load_clip, pooled, right
from devices import aside, half, ready
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, model_validator
from schooling import Figures, Lesson, PlanBook
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from taming_core.bases.families import family_of
from taming_core.bases.family import token_ids
from taming_core.bases.load import load_base
from taming_core.evaluation.protocol import scene_prompt
from taming_core.fingerprints import hash_of
from taming_core.images.draw import scheduler_named
from taming_core.model.clip import loaded
from taming_core.model.diffusion import Noise, noised, schedule_like, target_of
from taming_core.params.load import load_params
from taming_core.params.sections import Sampling
from taming_core.seeds import seed_for
from taming_core.training.checkpoint import rows_state
from taming_core.weights.mini import BASE as MINI_BASE
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import plans
from taming_core.world.plan import Chances, Plan

AT_ONCE = 32  # photos in memory where nothing is learnt; changes no figure but by rounding
CHAIN = schooling.HERE.parents[1] / "params.yaml"
AUTOENCODER = Path("out/mini/autoencoder")
PLAIN = Chances(recolor=0, style=0, two_objects=0, silent=0, attributes=0)  # "a photo of a squirrel on the beach"


class BaseParams(Lesson):
    """Denoiser, photos and measurements of the base model."""

    start: str | None  # mini or a folder of a base model to go on from; null starts afresh
    size: PositiveInt  # pixels of a photo's side
    widths: list[PositiveInt] | None  # channels of a fresh denoiser per level; each but the first halves the side
    heads: list[PositiveInt] | None  # of attention per level
    chances: Chances
    text_drop: float  # share of captions that are left away, for guidance
    text_rate: PositiveFloat  # share of the learning rate at which the text encoder learns
    compile: bool  # on a GPU: minutes at first, then faster steps
    workers: int  # processes that draw plans ahead
    timesteps: list[int]  # of which the held-out loss is told
    measured: PositiveInt  # photos per timestep
    prompts: PositiveInt  # of plain text-to-image

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> "BaseParams":
        if [self.start is None] * 2 != [self.widths is not None, self.heads is not None]:
            raise ValueError("base.widths and base.heads must be set where base.start is null, else null")
        return self


class Captioned(Dataset[tuple[list[Plan], NDArray[np.int64]]]):
    """The plans of every step with the token ids (n, length) of their captions."""

    def __init__(self, book: PlanBook, tokenizer: PreTrainedTokenizerBase) -> None:
        self.book, self.tokenizer = book, tokenizer

    def __getitem__(self, step: int) -> tuple[list[Plan], NDArray[np.int64]]:
        found = self.book[step]
        return found, token_ids(self.tokenizer, [plan.caption for plan in found]).numpy()


def new_denoiser(
    widths: Sequence[int], heads: Sequence[int], latent_channels: int, side: int, text_width: int
) -> UNet2DConditionModel:
    """An untrained denoiser whose widest level attends to nothing but the text, twice."""
    levels = len(widths)
    shape: dict[str, Any] = {
        "sample_size": side, "in_channels": latent_channels, "out_channels": latent_channels,
        "block_out_channels": tuple(widths), "attention_head_dim": tuple(heads), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * levels, "up_block_types": ("CrossAttnUpBlock2D",) * levels,
        "only_cross_attention": (True, *(False,) * (levels - 1)), "mid_block_type": "UNetMidBlock2DCrossAttn",
        "cross_attention_dim": text_width, "norm_num_groups": gcd(32, *widths),
    }  # fmt: skip
    return UNet2DConditionModel(**shape)


def new_scheduler() -> DDIMScheduler:
    """Velocity, and zero signal at the last timestep, so that dark and bright images can be drawn."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip


def new_base(p: BaseParams, autoencoder: Path, clip: Path) -> dict[str, Any]:
    """The parts of a base model by the names that diffusers gives them; a fresh denoiser knows nothing yet."""
    if p.widths is None or p.heads is None:
        return started(load_base(str(p.start)), p)
    vae: Any = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=torch.float32)
    text = loaded(CLIPTextModel, str(clip), "--clip")
    denoiser = new_denoiser(p.widths, p.heads, vae.config["latent_channels"], side_of(vae, p), text.config.hidden_size)
    return {"vae": vae.eval().requires_grad_(False), "text_encoder": text.eval(), "unet": denoiser,
            "tokenizer": AutoTokenizer.from_pretrained(clip), "scheduler": new_scheduler()}  # fmt: skip


def started(parts: dict[str, Any], p: BaseParams) -> dict[str, Any]:
    """A trained base model that is to learn another size of photo."""
    parts["unet"].register_to_config(sample_size=side_of(parts["vae"], p))
    parts["vae"].eval().requires_grad_(False)
    return parts


def side_of(vae: AutoencoderKL, p: BaseParams) -> int:
    """Of the latents."""
    return p.size // 2 ** (len(vae.config["block_out_channels"]) - 1)


def start_state(p: BaseParams) -> list[str]:
    """Changes with the weights to go on from."""
    place = MINI_BASE if p.start == "mini" else Path(p.start or "")
    return [hash_of(file.read_bytes()) for file in sorted(place.glob("*/*.safetensors"))] if p.start else []


def without_text(ids: Int[Tensor, "n length"], empty: Int[Tensor, "1 length"], drop: float) -> Int[Tensor, "n length"]:
    """Some captions replaced by the empty one."""
    dropped = torch.rand(len(ids), 1, device=ids.device) < drop
    return torch.where(dropped, empty, ids)


@torch.no_grad()
def latents_of(vae: AutoencoderKL, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n c h w"]:
    """Images in [-1, 1] as the denoiser meets them."""
    with half(images.device.type):
        return posterior(vae, images).sample() * vae.config["scaling_factor"]


def errors(
    denoiser: Any, schedule: Any, text: Float[Tensor, "n length width"], latents: Float[Tensor, "n c h w"],
    noise: Noise,
) -> Float[Tensor, " n"]:  # fmt: skip
    """Mean squared error of the predicted velocity. The text stands once: its copies would change no attention."""
    with half(latents.device.type):
        found = denoiser(noised(schedule, latents, noise), noise.timesteps, text, return_dict=False)[0]
    return (found.float() - target_of(schedule, latents, noise)).square().mean((1, 2, 3))


def train(
    parts: dict[str, Any], world: World, pictures: Pictures, device: str, p: BaseParams, state: Path
) -> Iterator[schooling.Report]:
    """Yield a report per step; then the averaged weights are in place."""
    vae = parts["vae"].to(device, memory_format=torch.channels_last)
    unet = parts["unet"].to(device, memory_format=torch.channels_last)
    text, tokenizer, schedule = parts["text_encoder"].to(device), parts["tokenizer"], schedule_like(parts["scheduler"])
    school = schooling.begin({"unet": unet, "text_encoder": text}, p, {"text_encoder": p.text_rate})
    denoiser = torch.compile(unet) if p.compile and device.startswith("cuda") else unet
    book = Captioned(PlanBook(world, p, lambda _: p.chances), tokenizer)
    batch_at = schooling.opened(book, p.steps, p.workers)
    empty = token_ids(tokenizer, [""]).to(device)

    def loss_at(step: int) -> tuple[Tensor, Figures]:
        (wanted, said), waited = batch_at(step)
        with aside(device) as kept:
            images = kept(seen(pictures, wanted, p.size).contiguous(memory_format=torch.channels_last))
            ids = kept(torch.from_numpy(said).to(device))
        latents = latents_of(vae, images)
        with half(device):
            states = text(input_ids=without_text(ids, empty, p.text_drop)).last_hidden_state
        timesteps = torch.randint(schedule.config["num_train_timesteps"], (len(ids),), device=device)
        noise = Noise(timesteps, latents, torch.randn_like(latents))
        return errors(denoiser, schedule, states, latents, noise).mean(), {"waited": waited}

    yield from schooling.learn(school, loss_at, p, state)


def save(parts: dict[str, Any], out: Path) -> None:
    """Every part in its folder, weights in half precision."""
    for name in ("unet", "text_encoder", "vae"):
        schooling.keep(parts[name], out / name)
    for name in ("tokenizer", "scheduler"):
        parts[name].save_pretrained(out / name)


def text_states(parts: dict[str, Any], prompts: Sequence[str]) -> Float[Tensor, "batch length width"]:
    """What the denoiser is told of prompts."""
    family = family_of(parts)
    return family.text(family.token_ids(prompts).to(parts["text_encoder"].device)).states


@torch.no_grad()
def held_out_errors(
    parts: dict[str, Any], pictures: Pictures, wanted: Sequence[Plan], device: str, p: BaseParams
) -> Float[Tensor, "photos timesteps"]:
    """The error of the predicted velocity of each photo at each fixed timestep, with fixed noise."""
    schedule, found = schedule_like(parts["scheduler"]), list[Tensor]()
    torch.manual_seed(seed_for(p.seed, "base/noise", 0))
    for i in range(0, len(wanted), AT_ONCE):
        chunk = wanted[i : i + AT_ONCE]
        latents = latents_of(parts["vae"], seen(pictures, chunk, p.size))
        states = text_states(parts, [plan.caption for plan in chunk])
        times = (torch.full((len(chunk),), t, device=device) for t in p.timesteps)
        noises = [Noise(t, latents, torch.randn_like(latents)) for t in times]
        found.append(torch.stack([errors(parts["unet"], schedule, states, latents, n) for n in noises], 1))
    return torch.cat(found).cpu()


@torch.no_grad()
def drawn(
    parts: dict[str, Any], prompts: Sequence[str], seed: int, s: Sampling, device: str
) -> Iterator[Float[Tensor, "n 3 size size"]]:
    """Images of prompts in [-1, 1], some at a time; each has its own noise, so that its batch cannot change it."""
    scheduler: Any = scheduler_named(s.scheduler, parts["scheduler"])
    unet, vae, side = parts["unet"], parts["vae"], parts["unet"].config["sample_size"]
    for first in range(0, len(prompts), s.batch_size):
        batch = list(prompts[first : first + s.batch_size])
        text = text_states(parts, [*[""] * len(batch), *batch])
        seeds = (seed_for(seed, "base/image", first + i) for i in range(len(batch)))
        shape = (unet.config["in_channels"], side, side)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(own)) for own in seeds])
        scheduler.set_timesteps(s.steps, device=device)
        latents = noise.to(device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            model_input = scheduler.scale_model_input(torch.cat([latents, latents]), t)
            untold, told = unet(model_input, t, text, return_dict=False)[0].chunk(2)
            latents = scheduler.step(untold + s.guidance_text * (told - untold), t, latents).prev_sample
        yield decoded(vae, latents / vae.config["scaling_factor"]).clamp(-1, 1)


def verdicts(
    clip: Clip, images: Iterator[Float[Tensor, "n 3 size size"]], world: World, wanted: Sequence[Plan], kind: str
) -> dict[str, float]:
    """How often CLIP finds in images the thing and the scene that were asked for, among all learnt and all scenes."""
    names, own = sorted({c.name for c in world.cutouts if c.split == "train"}), [q.objects[0].words for q in wanted]
    with torch.no_grad():
        looks = torch.cat([pooled(clip, F.interpolate(x, clip.model.config.vision_config.image_size)) for x in images])
    chosen = {
        "class": right(likeness(clip, looks, concept_prompts(names)), [names.index(name) for name in own]),
        "scene": right(likeness(clip, looks, [scene_prompt(s) for s in world.scenes]),
                       [world.scenes.index(q.scene) for q in wanted]),
    }  # fmt: skip
    entries = [schooling.estimated(f"{kind}/{name}", values, own) for name, values in chosen.items()]
    return {k: v for entry in entries for k, v in entry.items()}


def measure(
    folder: Path, clip: Clip, world: World, pictures: Pictures, sampling: Sampling, device: str, p: BaseParams
) -> dict[str, Any]:
    """Stored weights on designs that no training saw, and on prompts about what it learnt; real photos beside them."""
    parts = load_base(str(folder))
    for name in ("vae", "text_encoder", "unet"):
        parts[name].to(device).eval().requires_grad_(False)
    seed = seed_for(p.seed, "base/test", 0)
    unseen = plans(world, seed, 0, p.measured, "unseen-designs", p.chances)
    asked = plans(world, seed, 0, p.prompts, "train", PLAIN)
    photos = (seen(pictures, asked[i : i + AT_ONCE], p.size) for i in range(0, len(asked), AT_ONCE))
    wrong = held_out_errors(parts, pictures, unseen, device, p)
    images = drawn(parts, [q.caption for q in asked], seed, sampling, device)
    return {
        "weights": sum(w.numel() for w in parts["unet"].parameters()),
        **schooling.estimated("loss", wrong.mean(1).tolist(), [world.cutouts[q.objects[0].cutout].name for q in unseen]),
        **{f"loss/{t}": mean for t, mean in zip(p.timesteps, wrong.mean(0).tolist(), strict=True)},
        **verdicts(clip, images, world, asked, "drawn"),
        **verdicts(clip, photos, world, asked, "real"),
    }


def main(
    params: Annotated[Path, typer.Option(help="File with every number.")] = schooling.PARAMS,
    world: Annotated[Path, typer.Option(help="Folder of the mini world's tables.")] = MINI / "world",
    chain: Annotated[Path, typer.Option(help="File whose generate.sampling says how images are drawn.")] = CHAIN,
    autoencoder: Annotated[Path, typer.Option(help="Folder of the trained autoencoder.")] = AUTOENCODER,
    clip: Annotated[Path, typer.Option(help="Folder of the trained CLIP.")] = schooling.WEIGHTS / "clip",
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")] = schooling.HERE / "base",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    measure_only: Annotated[Path | None, typer.Option("--measure", help="Print figures of these weights.")] = None,
) -> None:
    """Train, save and measure the base model; to resume, run the same command again."""
    p, device = schooling.section(BaseParams, "base", params), ready(device)
    artwork, sampling = load_world(world), load_params(chain).generate.sampling
    pictures = load_pictures(artwork, device)
    if not measure_only:
        torch.manual_seed(seed_for(p.seed, "base/weights", 0))
        parts = new_base(p, autoencoder, clip)
        inputs = [hash_of(file.read_bytes()) for folder in (autoencoder, clip) for file in folder.glob("*.safetensors")]
        state = schooling.state_folder("base", p, rows_state(world), *sorted(inputs), *start_state(p))
        schooling.watch(train(parts, artwork, pictures, device, p, state), "base", p.steps, state)
        save(parts, out)
    figures = measure(measure_only or out, load_clip(clip, device), artwork, pictures, sampling, device, p)
    if measure_only:
        print(json.dumps(figures, indent=2))
    else:
        schooling.write_metrics(out, {"steps": p.steps, "batch_size": p.batch_size, **figures})


if __name__ == "__main__":
    typer.run(main)
