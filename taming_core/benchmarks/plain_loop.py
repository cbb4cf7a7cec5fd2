"""The plain training loop of public scripts, as a baseline for ours: everything is computed in each step.

Written after the training script of IP-Adapter and diffusers' `train_text_to_image.py`: the same network and rows,
frozen networks in the params' precision, a DataLoader that decodes images, and the loss read in each step.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from taming_core.model import lora
from taming_core.model.diffusion import guidance_at
from taming_core.model.inputs import Batch
from taming_core.model.subject_model import SubjectModel, predict, unfreeze
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows
from taming_core.training.batches import ExampleSource, collate, make_example
from taming_core.weights.device import DTYPES


class RowDataset(Dataset[Any]):
    """Rows as tensors, decoded on access."""

    def __init__(self, source: ExampleSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return 10**9  # repeated without end

    def __getitem__(self, position: int) -> Any:
        objects = self.source.rows.objects
        return make_example(self.source, int(objects[position % len(objects)]), position)


def plain_losses(model: SubjectModel, rows: Rows, accelerator: Accelerator, p: TrainParams) -> Iterator[float]:
    """Train without end, and yield the loss of every step."""
    device = accelerator.device
    if p.lora is not None:
        lora.add_lora(model.family.denoiser, p.lora, p.seed)
    trained = [w for part in unfreeze(model, p).values() for w in part.values()]
    # The scripts keep the tower separate from the trained weights.
    vision = getattr(model.object_encoder, "vision", None)
    for part in (*model.networks.values(), *([] if vision is None else [vision])):
        frozen = not any(w.requires_grad for w in part.parameters())
        # The `to` of diffusers warns about modules that it keeps in float32.
        torch.nn.Module.to(part, device, DTYPES[p.precision] if frozen else torch.float32)
    prepared = cast(Any, accelerator)  # its methods are partly untyped
    optimizer = prepared.prepare(torch.optim.AdamW(trained, lr=p.learning_rate, weight_decay=p.weight_decay))
    workers = 4 if device.type == "cuda" else 0
    source = ExampleSource.of(model, rows, p)
    dataset = RowDataset(source)
    loader = DataLoader(dataset, p.batch_size, num_workers=workers, collate_fn=partial(collate, source=source))
    for batch in loader:
        with accelerator.autocast():
            loss = loss_of(model, batch, device, p)
        prepared.backward(loss)
        prepared.clip_grad_norm_(trained, p.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def loss_of(model: SubjectModel, batch: Batch, device: torch.device, p: TrainParams) -> torch.Tensor:
    """The mean squared error of a batch, with its latents, text and object embeddings computed in the step."""
    family: Any = model.family
    assert batch.target is not None
    with torch.no_grad():
        latents = family.scale_latents(family.encode(batch.target.to(device)).sample()).float()
        text = family.text(batch.tokens.to(device))
    noise = torch.randn_like(latents)
    times = torch.randint(0, 1000, (len(latents),), device=device)
    share = (times / 1000).view(-1, 1, 1, 1)  # the cost of a step does not depend on the schedule
    noised = (1 - share) * latents + share * noise
    batch = replace(batch, tokens=batch.tokens.to(device), subject=batch.subject.to(device))
    sizes = None if batch.sizes is None else batch.sizes.to(device)
    batch = replace(batch, text_states=text.states, text_pooled=text.pooled, sizes=sizes)
    guidance = None if p.guidance is None else guidance_at(len(latents), p.guidance, torch.Generator()).to(device)
    return F.mse_loss(predict(model, noised, times, batch, guidance=guidance).output.float(), noise)
