"""The plain training loop that public scripts have, to be measured beside ours: everything is computed in each step.

Written after the training script of IP-Adapter and diffusers' `train_text_to_image.py`: the same network and rows,
frozen parts in half precision where there is any, a DataLoader that decodes pictures, and the loss read in each step.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from taming_core.model.inputs import EncoderInputs
from taming_core.model.subject_model import SubjectModel, predict, unfreeze
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows
from taming_core.training.batches import Batch, collate, make_example
from taming_core.weights.device import DTYPES


class RowDataset(Dataset[Any]):
    """Rows as tensors, decoded when they are asked for."""

    def __init__(self, rows: Rows, model: SubjectModel, p: TrainParams) -> None:
        self.rows, self.p = rows, p
        self.shown, self.size = EncoderInputs.of(model.object_encoder.config), model.object_encoder.image_size

    def __len__(self) -> int:
        return 10**9  # as many as are asked for

    def __getitem__(self, position: int) -> Any:
        number = int(self.rows.objects[position % len(self.rows.objects)])
        return make_example(self.rows, number, position, self.size, self.p, self.shown)


def plain_losses(model: SubjectModel, rows: Rows, accelerator: Accelerator, p: TrainParams) -> Iterator[float]:
    """Train for ever, and yield the loss of every step."""
    family, device = model.family, accelerator.device
    trained = [w for part in unfreeze(model, p).values() for w in part.values()]
    vision = getattr(model.object_encoder, "vision", None)  # the scripts hold the tower apart from what they train
    for part in (*model.networks.values(), *([] if vision is None else [vision])):
        frozen = not any(w.requires_grad for w in part.parameters())
        # Diffusers' own `to` warns that it keeps no module in float32.
        torch.nn.Module.to(part, device, DTYPES[p.precision] if frozen else torch.float32)
    optimizer: Any = accelerator.prepare(torch.optim.AdamW(trained, lr=p.learning_rate, weight_decay=p.weight_decay))
    workers = 4 if device.type == "cuda" else 0
    pictures = RowDataset(rows, model, p)
    loader = DataLoader(pictures, p.batch_size, num_workers=workers, collate_fn=lambda e: collate(e, family.token_ids))
    for batch in loader:
        with accelerator.autocast():
            loss = loss_of(model, batch, device)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, p.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def loss_of(model: SubjectModel, batch: Batch, device: torch.device) -> torch.Tensor:
    """The mean squared error of a batch, whose latents, text and subjects are computed here."""
    family: Any = model.family
    assert batch.target is not None
    with torch.no_grad():
        images = batch.target.to(device, family.vae.dtype)
        latents = family.scale_latents(family.vae.encode(images).latent_dist.sample()).float()
        text = family.text(batch.tokens.to(device))
    noise = torch.randn_like(latents)
    times = torch.randint(0, 1000, (len(latents),), device=device)
    share = (times / 1000).view(-1, 1, 1, 1)  # what is asked of the network costs the same whatever the schedule is
    noised = (1 - share) * latents + share * noise
    found = predict(model, noised, times, batch.tokens.to(device), batch.subject.to(device), batch.present, text=text)
    return F.mse_loss(found.output.float(), noise)
