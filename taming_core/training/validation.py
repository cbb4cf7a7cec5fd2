"""Validation grids during training: a few objects and prompts, always with the same seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from taming_core.figures.image_grid import Cell, grid
from taming_core.images.draw import draw, save
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest
from taming_core.language.placeholder import prompt_for
from taming_core.params.train import TrainParams, ValidationGrid
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, encoder_image
from taming_core.tables.rows import Rows
from taming_core.training.compilation import uncompiled
from taming_core.training.ema import ema_weights
from taming_core.training.loop import Run, autocast

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


@torch.no_grad()
def draw_grid(
    pipeline: TamingPipeline, subjects: Sequence[GridSubject], p: ValidationGrid, seed: int, heading: str
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
