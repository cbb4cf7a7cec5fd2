"""Train the CLIP of `mini`: photos against captions, and photos against reference views of the same object.

It is the text judge for scenes and styles, its towers initialise the text encoder and the object encoder, and its
identity head is the frozen network of the identity loss.

Example:  python -m pipelines.mini.clip
          python -m pipelines.mini.clip --measure taming_core/mini/clip    # measure, train nothing
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipelines.mini.clip_batches import Batch, ClipDataset, caption_matches, same_identity
from pipelines.mini.clip_measures import measure
from pipelines.mini.clip_model import Clip, ClipParams, image_features, new_clip, pooled, save, text_features
from pipelines.mini.devices import autocast, side_stream
from pipelines.mini.options import DeviceName, MeasureOnly, OutFolder, ParamsFile, WorldFolder
from pipelines.mini.stage_params import OUT, PARAMS, WORLD, load_section
from pipelines.mini.tokenizer import word_tokenizer
from pipelines.mini.train_state import new_train_state
from pipelines.mini.training_loop import Logs, Report, Stage, train, train_and_measure
from pipelines.mini.world_data import WorldData, batch_reader, load_data
from taming_core.fingerprints import folder_fingerprint
from taming_core.world.artwork import Pictures
from taming_core.world.render import composite_on_grey, draw, references


def contrastive_loss(
    rows: Float[Tensor, "n features"], columns: Float[Tensor, "n features"], scale: Tensor,
    also_true: Bool[Tensor, "n n"],
) -> Tensor:  # fmt: skip
    """Symmetric InfoNCE (van den Oord et al., 2018) over unit features; pairs in `also_true` are no negatives."""
    diagonal = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = (scale * rows @ columns.T).masked_fill(also_true & ~diagonal, -torch.inf)
    labels = torch.arange(len(rows), device=rows.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@dataclass(frozen=True)
class Example:
    """A batch as tensors, images in [-1, 1]."""

    photos: Float[Tensor, "n 3 size size"]
    references: Float[Tensor, "n 3 size size"]
    ids: Int[Tensor, "n length"]
    photo_facts: Int[Tensor, "n 3"]
    caption_facts: Int[Tensor, "n 3"]
    identities: Float[Tensor, "n 4"]


def render_example(batch: Batch, pictures: Pictures, size: int, device: str) -> Example:
    """Render the photos and reference views of a batch."""
    with side_stream(device) as keep_alive:
        arrays = (batch.ids, batch.photo_facts, batch.caption_facts, batch.identities.astype(np.float32))
        return Example(
            keep_alive(draw(pictures, batch.plans, size)[0] * 2 - 1),
            keep_alive(composite_on_grey(references(pictures, batch.plans, size)) * 2 - 1),
            *(keep_alive(torch.from_numpy(array).to(device)) for array in arrays),
        )


def loss_of(clip: Clip, e: Example, p: ClipParams) -> tuple[Tensor, Logs]:
    """Photos against captions, plus photos against reference views."""
    count = len(e.photos)
    with autocast(e.photos.device.type):
        features = pooled(clip, torch.cat([e.photos, e.references]))
        photos, captions = image_features(clip, features[:count]), text_features(clip, e.ids)
        identities = clip.head(features)
    scale, identity_scale = clip.model.logit_scale.exp(), clip.head.log_scale.exp()
    matches = caption_matches(e.photo_facts, e.caption_facts)
    text = contrastive_loss(photos, captions, scale.clamp(max=p.max_scale), matches)
    identity = contrastive_loss(identities[:count], identities[count:], identity_scale.clamp(max=p.max_identity_scale),
                                same_identity(e.identities))  # fmt: skip
    return text + identity, {"text": text, "identity": identity}


def train_clip(clip: Clip, data: WorldData, p: ClipParams, state: Path) -> Iterator[Report]:
    """Yield a report per step; at the end the EMA weights are in place."""
    modules = {"model": clip.model.to(data.device), "head": clip.head.to(data.device)}
    batch_at = batch_reader(ClipDataset(data.world, clip.tokenizer, p), p.steps, p.workers)

    def loss_at(step: int) -> tuple[Tensor, Logs]:
        batch, waited = batch_at(step)
        loss, logs = loss_of(clip, render_example(batch, data.pictures, p.size, data.device), p)
        return loss, {**logs, "waited": waited}

    yield from train(new_train_state(modules, p), loss_at, p, state)


def main(
    params: ParamsFile = PARAMS,
    world: WorldFolder = WORLD,
    out: OutFolder = OUT / "clip",
    device: DeviceName = "auto",
    measure_only: MeasureOnly = None,
) -> None:
    """Train, save and measure CLIP; to resume, run the same command again."""
    p, data = load_section(ClipParams, "clip", params), load_data(world, device)
    stage = Stage(
        name="clip",
        build=lambda: new_clip(p, word_tokenizer(data.world)),
        train=lambda clip, state: train_clip(clip, data, p, state),
        save=lambda clip, folder: save(clip, p.size, folder),
        measure=lambda folder: measure(folder, data, p),
        inputs=lambda: [folder_fingerprint(world)],
    )
    train_and_measure(stage, p, out, measure_only)


if __name__ == "__main__":
    typer.run(main)
