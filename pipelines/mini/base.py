"""Train the base model of `mini`: text to image in the latents of its autoencoder, without an object encoder.

The denoiser predicts velocity on a noise schedule with zero terminal SNR (Salimans and Ho, 2022; Lin et al., 2024).
Its text encoder is initialised from CLIP's.

Example:  python -m pipelines.mini.base
          python -m pipelines.mini.base --measure pipelines/mini/base    # measure, train nothing
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from pipelines.mini.autoencoder import render_images
from pipelines.mini.base_measures import measure
from pipelines.mini.base_model import BaseParams, encode_images, new_base, save, start_digests, velocity_errors
from pipelines.mini.clip_model import load_clip
from pipelines.mini.devices import autocast, side_stream
from pipelines.mini.options import ClipFolder, DeviceName, MeasureOnly, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import HERE, OUT, PARAMS, WORLD, load_section
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, train, train_and_measure
from pipelines.mini.world_data import PlanDataset, WorldData, batch_reader, load_data
from taming_core.bases.family import token_ids
from taming_core.fingerprints import folder_fingerprint, hash_of
from taming_core.model.diffusion import Noise, noise_schedule_of
from taming_core.params.load import load_params
from taming_core.weights.mini import MINI
from taming_core.world.plan import Plan

CHAIN = HERE.parents[1] / "params.yaml"


class CaptionedPlans(Dataset[tuple[list[Plan], NDArray[Any]]]):
    """The plans of every step with the token ids (n, length) of their captions."""

    def __init__(self, plans: PlanDataset, tokenizer: PreTrainedTokenizerBase) -> None:
        self.plans, self.tokenizer = plans, tokenizer

    def __getitem__(self, step: int) -> tuple[list[Plan], NDArray[Any]]:
        plans = self.plans[step]
        return plans, token_ids(self.tokenizer, [plan.caption for plan in plans]).numpy()


def drop_text(ids: Int[Tensor, "n length"], empty: Int[Tensor, "1 length"], rate: float) -> Int[Tensor, "n length"]:
    """Replace a share of the captions by the empty prompt, for classifier-free guidance."""
    dropped = torch.rand(len(ids), 1, device=ids.device) < rate
    return torch.where(dropped, empty, ids)


def random_noise(latents: Float[Tensor, "n c h w"], timesteps: int) -> Noise:
    """Uniform timesteps and standard normal noise, from torch's global generator."""
    drawn = torch.randint(timesteps, (len(latents),), device=latents.device)
    return Noise(drawn, latents, torch.randn_like(latents))


def train_base(parts: dict[str, Any], data: WorldData, p: BaseParams, folder: Path) -> Iterator[Report]:
    """Yield a report per step; at the end the EMA weights are in place."""
    device, schedule = data.device, noise_schedule_of(parts["scheduler"])
    vae = parts["vae"].to(device, memory_format=torch.channels_last)
    unet = parts["unet"].to(device, memory_format=torch.channels_last)
    text, tokenizer = parts["text_encoder"].to(device), parts["tokenizer"]
    state = new_train_state({"unet": unet, "text_encoder": text}, p, {"text_encoder": p.text_rate})
    denoiser = torch.compile(unet) if p.compile and device.startswith("cuda") else unet
    plans = PlanDataset(data.world, p, lambda _: p.chances)
    batch_at = batch_reader(CaptionedPlans(plans, tokenizer), p.steps, p.workers)
    empty = token_ids(tokenizer, [""]).to(device)

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        (batch, captions), waited = batch_at(step)
        with side_stream(device) as keep_alive:
            images = render_images(data.pictures, batch, p.size).contiguous(memory_format=torch.channels_last)
            images, ids = keep_alive(images), keep_alive(torch.from_numpy(captions).to(device))
        latents = encode_images(vae, images)
        with autocast(device):
            states = text(input_ids=drop_text(ids, empty, p.text_drop)).last_hidden_state
        noise = random_noise(latents, schedule.config["num_train_timesteps"])
        return velocity_errors(denoiser, schedule, states, latents, noise).mean(), {"waited": waited}

    yield from train(state, loss_at, p, folder)


def input_digests(world: Path, folders: Sequence[Path], p: BaseParams) -> list[str]:
    """Digests of the artwork and of all weights that the training starts from."""
    weights = [hash_of(file.read_bytes()) for folder in folders for file in folder.glob("*.safetensors")]
    return [folder_fingerprint(world), *sorted(weights), *start_digests(p)]


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    chain: Annotated[Path, typer.Option(help="Params file whose generate.sampling is used to measure.")] = CHAIN,
    autoencoder: Annotated[Path, typer.Option(help="Folder of the trained autoencoder.")] = OUT / "autoencoder",
    clip: ClipFolder = MINI / "clip",
    out: OutFolder = OUT / "base",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure the base model; to resume, run the same command again."""
    p, data = load_section(BaseParams, "base", params), load_data(world, device)
    sampling = load_params(chain).generate.sampling
    stage = Stage(
        name="base",
        build=lambda: new_base(p, autoencoder, clip),
        train=lambda parts, state: train_base(parts, data, p, state),
        save=save,
        measure=lambda folder: measure(folder, load_clip(clip, data.device), data, sampling, p),
        inputs=lambda: input_digests(world, (autoencoder, clip), p),
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
