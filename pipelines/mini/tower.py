"""Train the vision tower of captioner and matcher: it classifies cut-outs, names, classes, scenes, styles and places.

It starts from CLIP's tower. Linear heads on the class token classify cut-outs, names and classes; heads on the mean
patch classify scenes, styles, sizes and places. Captioner and matcher then read the tower's tokens; the heads only
initialise the captioner, see `captioner_start.py`.

CLIP distinguishes objects far better by their image than by their caption, so the heads for cut-outs and names start as
discriminants of the reference views, and the lowest blocks stay frozen.

Example:  python -m pipelines.mini.tower
          python -m pipelines.mini.tower --measure out/mini/tower    # measure, train nothing
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BlipVisionModel

from pipelines.mini.blip import SIZE, start_from_clip, tower_config
from pipelines.mini.devices import autocast
from pipelines.mini.metrics import share_with_interval
from pipelines.mini.options import ClipFolder, DeviceName, MeasureOnly, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, file_digest, load_section
from pipelines.mini.teacher_features import load_tower
from pipelines.mini.tower_heads import (
    DISCRIMINANTS,
    TowerParams,
    chunks_of,
    labels_of,
    load_heads,
    logits_of,
    new_heads,
    pooled_tokens,
    start_heads,
)
from pipelines.mini.train_state import TrainState, new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, train, train_and_measure
from pipelines.mini.world_data import PlanDataset, WorldData, batch_reader, load_data
from taming_core.fingerprints import folder_fingerprint
from taming_core.seeds import seed_for
from taming_core.weights.mini import MINI
from taming_core.world.artwork import SPLITS
from taming_core.world.photos import plans
from taming_core.world.plan import Plan
from taming_core.world.render import draw

UNMEASURED = {"train": (), "unseen-designs": ("cutout",), "unseen-concepts": ("cutout", "name")}  # no such classes

Tower = tuple[BlipVisionModel, nn.ModuleDict]  # with its heads


def new_tower(data: WorldData, clip: Path, p: TowerParams) -> Tower:
    """A tower with CLIP's weights, and its initialised heads."""
    network: Any = BlipVisionModel(tower_config())  # transformers types `to` wrongly
    tower = network.to(data.device)
    heads = new_heads(data.world, tower.config.hidden_size).to(data.device)
    start_from_clip(tower, clip)
    start_heads(heads, tower, data, p)
    return tower, heads


def new_state(model: Tower, p: TowerParams) -> TrainState:
    """The state at step 0; the embeddings and the lowest blocks are frozen."""
    tower, heads = model
    for module in (tower.embeddings, *tower.encoder.layers[: p.frozen]):
        module.requires_grad_(False)
    discriminants = nn.ModuleDict({name: heads[name] for name in DISCRIMINANTS})
    others = nn.ModuleDict({name: head for name, head in heads.items() if name not in DISCRIMINANTS})
    rates = {"discriminants": p.discriminants_rate, "heads": p.heads_rate}
    return new_train_state({"tower": tower, "discriminants": discriminants, "heads": others}, p, rates)


def train_tower(model: Tower, data: WorldData, p: TowerParams, folder: Path) -> Iterator[Report]:
    """Yield a report per step: weighted cross-entropy over all attributes."""
    tower, heads = model
    plans_at = batch_reader(PlanDataset(data.world, p, lambda _: p.chances), p.steps, p.workers)

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        batch, _ = plans_at(step)
        labels = labels_of(data.world, batch)
        with autocast(data.device):
            logits = logits_of(heads, pooled_tokens(tower, draw(data.pictures, batch, SIZE)[0]))
            losses = {k: F.cross_entropy(x.float(), labels[k].to(data.device)) for k, x in logits.items()}
        return torch.stack([p.weights[k] * loss for k, loss in losses.items()]).sum(), losses

    yield from train(new_state(model, p), loss_at, p, folder)


@torch.no_grad()
def correct(model: Tower, data: WorldData, sample: Sequence[Plan]) -> dict[str, list[bool]]:
    """Whether each attribute of each photo is classified right."""
    tower, heads = model
    labels = labels_of(data.world, sample)
    pooled = torch.cat([pooled_tokens(tower, draw(data.pictures, c, SIZE)[0]) for c in chunks_of(sample)])
    return {k: (x.argmax(1).cpu() == labels[k]).tolist() for k, x in logits_of(heads, pooled).items()}


def measure(folder: Path, data: WorldData, p: TowerParams) -> dict[str, Any]:
    """Accuracy of every attribute on new photos of each split."""
    world, tower = data.world, load_tower(folder, data.device)
    model = tower, load_heads(folder, world).to(data.device)
    metrics: dict[str, Any] = {"weights": sum(w.numel() for w in tower.parameters()), "photos": p.eval_photos}
    for split in SPLITS:
        sample = plans(world, seed_for(p.seed, "tower/test", 0), 0, p.eval_photos, split, p.chances)
        names = [world.cutouts[plan.objects[0].cutout].name for plan in sample]
        for attribute, right in correct(model, data, sample).items():
            if attribute not in UNMEASURED[split]:
                metrics |= share_with_interval(f"{split}/{attribute}", right, names)
    return metrics


def save(model: Tower, out: Path) -> None:
    """Save tower and heads in full precision; only the captioner's copy of the tower is shipped."""
    out.mkdir(parents=True, exist_ok=True)
    for name, module in zip(("model", "heads"), model, strict=True):
        save_file(
            {k: v.float().cpu().contiguous() for k, v in module.state_dict().items()}, out / f"{name}.safetensors"
        )


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    clip: ClipFolder = MINI / "clip",
    out: OutFolder = OUT / "tower",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure the tower; to resume, run the same command again."""
    p, data = load_section(TowerParams, "tower", params), load_data(world, device)
    weights = clip / "model.safetensors"
    stage = Stage(
        name="tower",
        build=lambda: new_tower(data, weights, p),
        train=lambda model, state: train_tower(model, data, p, state),
        save=save,
        measure=lambda folder: measure(folder, data, p),
        inputs=lambda: [folder_fingerprint(world), file_digest(weights)],
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
