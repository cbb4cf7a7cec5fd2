"""Train the classifier of cut-outs, which names the objects that the detector finds: one of the 17 classes.

It starts from CLIP's vision tower, which has seen every trained object by name; the lowest blocks stay frozen, since a
class of a concept that is not among the trained ones is read from parts and colours that these know already.

Example:  python -m pipelines.mini.classifier
          python -m pipelines.mini.classifier --measure out/mini/classifier    # measure, train nothing
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from transformers import CLIPForImageClassification, CLIPImageProcessor

from pipelines.mini.devices import autocast
from pipelines.mini.metrics import share_with_interval
from pipelines.mini.options import ClipFolder, DeviceName, MeasureOnly, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, TrainingParams, file_digest, load_section
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, save_half_precision, train, train_and_measure
from pipelines.mini.world_data import PlanDataset, WorldData, batch_reader, load_data
from taming_core.fingerprints import folder_fingerprint
from taming_core.objects.classifier import load_object_classifier
from taming_core.photos.masks import cutout_on_grey
from taming_core.seeds import seed_for
from taming_core.weights.load import no_progress_bars
from taming_core.weights.mini import MINI
from taming_core.world.artwork import class_nouns
from taming_core.world.photos import Photos, photos_of, plans
from taming_core.world.plan import Chances

FILL = 0.92  # share of the crop that the object fills
SPLITS = ("train", "unseen-concepts", "unseen-designs")


class ClassifierParams(TrainingParams):
    """The photos, and what trains."""

    size: PositiveInt  # pixels of the photos
    recolor: float
    style: float
    head_rate: PositiveFloat  # of the linear layer, times learning_rate
    frozen: NonNegativeInt  # blocks of the tower, from below
    smoothing: float = Field(ge=0, lt=1)  # of the labels
    workers: NonNegativeInt
    eval_photos: PositiveInt  # per split

    @property
    def chances(self) -> Chances:
        """Photos of one object."""
        return Chances(recolor=self.recolor, style=self.style, two_objects=0.0)


def new_classifier(clip: Path, p: ClassifierParams) -> CLIPForImageClassification:
    """CLIP's vision tower with an untrained linear layer over the mean of its patches."""
    names = class_nouns()
    labels: Any = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    with no_progress_bars():
        kind: Any = CLIPForImageClassification
        network = kind.from_pretrained(clip, dtype=torch.float32, **labels)
    torch.nn.init.zeros_(network.classifier.weight)
    torch.nn.init.zeros_(network.classifier.bias)
    tower = network.vision_model
    for part in (tower.embeddings, tower.pre_layrnorm, *tower.encoder.layers[: p.frozen]):
        part.requires_grad_(False)
    return network


def crops_of(photos: Photos, size: int) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The cut-out of each photo's object on mid-grey, and its class; without objects that nothing is visible of."""
    visible = [i for i, masks in enumerate(photos.masks) if masks[0].any()]
    crops = [cutout_on_grey(photos.image[i].numpy(), photos.masks[i][0].numpy(), size, FILL) for i in visible]
    return crops, [photos.objects[i][0].noun for i in visible]


def train_classifier(network: Any, data: WorldData, p: ClassifierParams, folder: Path) -> Iterator[Report]:
    """Yield a report per step: the cross-entropy of the classes."""
    plans_at = batch_reader(PlanDataset(data.world, p, lambda _: p.chances), p.steps, p.workers)
    names, side = class_nouns(), network.config.vision_config.image_size
    network.to(data.device).train()

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        batch, _ = plans_at(step)
        crops, nouns = crops_of(photos_of(data.world, data.pictures, batch, p.size), side)
        pixels = torch.as_tensor(np.stack(crops)).to(data.device).permute(0, 3, 1, 2) / 127.5 - 1
        labels = torch.tensor([names.index(noun) for noun in nouns]).to(data.device)
        with autocast(data.device):
            logits = network(pixel_values=pixels).logits
        right = (logits.argmax(1) == labels).float().mean()
        return F.cross_entropy(logits.float(), labels, label_smoothing=p.smoothing), {"right": right}

    parts = {"tower": network.vision_model, "head": network.classifier}
    yield from train(new_train_state(parts, p, {"head": p.head_rate}), loss_at, p, folder)


def measure(folder: Path, data: WorldData, p: ClassifierParams) -> dict[str, Any]:
    """Shares of right classes on new photos of each split, of all objects and of the surer half."""
    classify = load_object_classifier(str(folder), None, data.device)
    metrics: dict[str, Any] = {"photos": p.eval_photos}
    for split in SPLITS:
        sample = plans(data.world, seed_for(p.seed, "classifier/test", 0), 0, p.eval_photos, split, p.chances)
        photos = photos_of(data.world, data.pictures, sample, p.size)
        crops, nouns = crops_of(photos, p.size)
        concepts = [o[0].name for o, m in zip(photos.objects, photos.masks, strict=True) if m[0].any()]
        found = [named for start in range(0, len(crops), 32) for named in classify(crops[start : start + 32])]
        right = [named.noun == noun for named, noun in zip(found, nouns, strict=True)]
        metrics |= share_with_interval(f"{split}/right", right, concepts)
        metrics |= of_the_sure(split, [named.probability for named in found], right)
    return metrics


def of_the_sure(split: str, probabilities: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    """How many objects reach each probability, and how many of these are named right."""
    found: dict[str, float] = {}
    for least in (0.3, 0.4, 0.5, 0.6, 0.7):
        named = [r for p, r in zip(probabilities, right, strict=True) if p >= least]
        found[f"{split}/named_from_{least}"] = len(named) / len(right)
        found[f"{split}/right_from_{least}"] = sum(named) / max(len(named), 1)
    return found


def save(network: Any, out: Path) -> None:
    """Save in half precision, with an image processor, so that the folder opens by its name."""
    save_half_precision(network.cpu().eval(), out)
    side, grey = network.config.vision_config.image_size, [0.5] * 3
    size = {"height": side, "width": side}
    CLIPImageProcessor(size=size, do_center_crop=False, image_mean=grey, image_std=grey).save_pretrained(out)


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    clip: ClipFolder = MINI / "clip",
    out: OutFolder = OUT / "classifier",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure the classifier; to resume, run the same command again."""
    p, data = load_section(ClassifierParams, "classifier", params), load_data(world, device, render_on_cpu=True)
    stage = Stage(
        name="classifier",
        build=lambda: new_classifier(clip, p),
        train=lambda network, state: train_classifier(network, data, p, state),
        save=save,
        measure=lambda folder: measure(folder, data, p),
        inputs=lambda: [folder_fingerprint(world), file_digest(clip / "model.safetensors")],
        log_size=False,
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
