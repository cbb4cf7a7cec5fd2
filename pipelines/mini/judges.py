"""Train the judges of `mini`, which no other training may use: a lenient one and a strict one.

The lenient judge compares whole photos and tolerates deformed shapes. The strict one compares the object alone, cut out
and enlarged, and is trained to distinguish it from corrupted copies (see corruptions.py).

Example:  python -m pipelines.mini.judges --which strict_judge
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from pipelines.mini.devices import autocast
from pipelines.mini.judge_batches import ViewsAt, lenient_views, strict_views
from pipelines.mini.judge_measures import measure_lenient, measure_strict
from pipelines.mini.judge_networks import (
    LenientParams,
    StrictParams,
    Temperature,
    contrastive_loss,
    lenient_network,
    save,
    strict_network,
)
from pipelines.mini.options import DeviceName, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, load_section
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, train, train_and_measure
from pipelines.mini.world_data import load_data
from taming_core.evaluation.judges import JudgeRole, image_features
from taming_core.fingerprints import folder_fingerprint
from taming_core.world.artwork import Pictures, World


@dataclass(frozen=True)
class JudgeKind:
    """What differs between the two judges."""

    params: type[Any]
    network: Callable[[Any], nn.Module]
    views: Callable[[World, Pictures, Any], ViewsAt]
    measure: Callable[[Path, World, Pictures, Any], dict[str, float]]


JUDGES = {
    "judge": JudgeKind(LenientParams, lenient_network, lenient_views, measure_lenient),
    "strict_judge": JudgeKind(StrictParams, strict_network, strict_views, measure_strict),
}


def train_judge(
    network: nn.Module, views_at: ViewsAt, p: StrictParams | LenientParams, device: str, folder: Path
) -> Iterator[Report]:
    """Yield a report per step: contrastive loss between two views of each object."""
    scale = Temperature(p.max_scale).to(device)
    modules: dict[str, nn.Module] = {"network": network.to(device).train(), "scale": scale}

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        first, second = views_at(step)
        with autocast(device):
            features = image_features(network, torch.cat([first, second]).to(device))
        loss, right = contrastive_loss(features[: len(first)], features[len(first) :], scale())
        return loss, {"right": right, "scale": scale().item()}

    yield from train(new_train_state(modules, p), loss_at, p, folder)


def main(
    which: Annotated[JudgeRole, typer.Option(help="Which of the two judges.")] = "strict_judge",
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    out: Annotated[Path | None, typer.Option(help="Folder for the weights; default out/mini/WHICH.")] = None,
    device: DeviceName = "auto",
) -> None:
    """Train, save and measure one judge; to resume, run the same command again."""
    data, kind = load_data(world, device), JUDGES[which]
    p = load_section(kind.params, which, params)
    stage = Stage(
        name=which,
        build=lambda: kind.network(p),
        train=lambda network, state: train_judge(
            network, kind.views(data.world, data.pictures, p), p, data.device, state
        ),
        save=lambda network, folder: save(network.cpu().eval(), folder),
        measure=lambda folder: kind.measure(folder, data.world, data.pictures, p),
        inputs=lambda: [folder_fingerprint(world)],
        seed_name=which,
        log_size=False,
    )
    train_and_measure(stage, p, out or OUT / which)


if __name__ == "__main__":
    typer.run(main)
