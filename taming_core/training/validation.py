"""Validation during training: the denoising loss of held-out rows, and images of held-out objects.

Rows, noise, prompts and seeds are the same every time, so that steps can be compared.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from taming_core.figures.image_grid import Cell, grid
from taming_core.images.draw import draw, save
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest
from taming_core.language.placeholder import prompt_for
from taming_core.params.train import TrainParams, ValidationParams
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, encoder_image
from taming_core.tables.rows import Rows
from taming_core.training import distributed
from taming_core.training.batches import NO_CACHES, ExampleSource, batch_at
from taming_core.training.compilation import uncompiled
from taming_core.training.ema import ema_weights
from taming_core.training.loop import Run, autocast, forward_backward, noise_for_batch

SIDE = 160  # pixels of an image in the grid


class GridSubject(NamedTuple):
    """One object of the grid."""

    image: Image.Image  # RGBA, the encoder's input
    prompts: tuple[str, ...]


def grid_rows(validation: Rows, training: Rows) -> Rows:
    """The split of the grid's objects: validation, or training if validation has none."""
    return validation if len(validation.objects) else training


def grid_subjects(rows: Rows, p: TrainParams, background: Background) -> list[GridSubject]:
    """The first `validation.objects` identities, with their prompts."""
    identities = rows.column("identity")
    first = {identities[i]: int(i) for i in reversed(rows.objects)}
    chosen = [rows[i] for i in sorted(first.values())[: p.validation.objects]]
    prompts = [tuple(prompt_for(prompt, p.captions, r["class"]) for prompt in p.validation.prompts) for r in chosen]
    return [GridSubject(encoder_image(r, background), texts) for r, texts in zip(chosen, prompts, strict=True)]


def held_out_source(source: ExampleSource, rows: Rows) -> ExampleSource:
    """The source of held-out examples: as in training, but all with an object and its caption, and without caches."""
    changes = {"regularization": 0.0, "object_drop": 0.0, "text_drop": 0.0, "identity_weight": 0.0,
               "identity_max_timestep": None, "localization_weight": 0.0,
               "seed": seed_for(source.params.seed, "held out", 0)}  # fmt: skip
    return replace(source, rows=rows, params=source.params.model_copy(update=changes), caches=NO_CACHES)


@torch.no_grad()
def held_out_loss(run: Run, source: ExampleSource) -> float | None:
    """The denoising loss of `validation.batches` batches, by the weights of the run, or their EMA where one is kept.

    None without batches, or without held-out objects. All processes must call it; each computes its share of a batch.
    """
    p, share = source.params, run.processes.share(source.params.batch_size)
    if not (p.validation.batches and len(source.rows.objects)):
        return None
    total = torch.zeros((), device=run.accelerator.device)
    with ema_weights(run.ema, run.weights), uncompiled(p):
        for number in range(p.validation.batches):
            batch = batch_at(number, source, share)
            sums, _ = forward_backward(run, batch, noise_for_batch(run, batch, number, p), p)
            total += distributed.all_reduce(sums, run.processes)[0]  # in the order of one process
    return total.item() / p.validation.batches


@torch.no_grad()
def draw_grid(
    pipeline: TamingPipeline, subjects: Sequence[GridSubject], p: ValidationParams, seed: int, heading: str
) -> Image.Image:
    """One image: a row for each subject, a column for each prompt."""
    cells = [(o, n) for o in range(len(subjects)) for n in range(len(p.prompts))]
    requests = [
        ImageRequest(subjects[o].prompts[n], (o,), seed_for(seed, "validation", i)) for i, (o, n) in enumerate(cells)
    ]
    images = list(draw(pipeline, requests, pipeline.encode_objects([s.image for s in subjects]), p.sampling))
    width = len(p.prompts)
    rows = [[Cell(s.image), *map(Cell, images[i * width : (i + 1) * width])] for i, s in enumerate(subjects)]
    return grid(heading, ["subject", *p.prompts], rows, SIDE)


def save_grid(pipeline: TamingPipeline, run: Run, subjects: Sequence[GridSubject], p: TrainParams, path: Path) -> None:
    """Draw the grid with the weights of the run, or their EMA where one is kept; the main process writes it."""
    with autocast(run.accelerator), ema_weights(run.ema, run.weights), uncompiled(p):
        image = draw_grid(pipeline, subjects, p.validation, p.seed, f"After {run.step} steps")
    if run.processes.is_main:
        save(image, path)
