"""Fixed pictures that show during training whether it works: a few objects and prompts, always the same seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image

from taming_core.figures.image_grid import Cell, grid
from taming_core.images.draw import draw
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest
from taming_core.language.placeholder import prompt_for
from taming_core.params.train import TrainParams, ValidationGrid
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, encoder_image
from taming_core.tables.rows import Rows

SIDE = 160  # pixels of a picture in the grid


class GridSubject(NamedTuple):
    """One object of the grid."""

    image: Image.Image  # RGBA, what the encoder sees
    prompts: tuple[str, ...]  # what is asked of it


def grid_rows(validation: Rows, training: Rows) -> Rows:
    """Where the objects of the grid come from: the validation split, or the training split where that has none."""
    return validation if len(validation.objects) else training


def grid_subjects(rows: Rows, p: TrainParams, background: Background) -> list[GridSubject]:
    """The first identities, as many as the params say."""
    identities = rows.column("identity")
    first = {identities[i]: int(i) for i in reversed(rows.objects)}
    shown = [rows[i] for i in sorted(first.values())[: p.validation.objects]]
    asked = [tuple(prompt_for(prompt, p.captions, r["class"]) for prompt in p.validation.prompts) for r in shown]
    return [GridSubject(encoder_image(r, background), prompts) for r, prompts in zip(shown, asked, strict=True)]


@torch.no_grad()
def draw_grid(
    pipeline: TamingPipeline, subjects: Sequence[GridSubject], p: ValidationGrid, seed: int, heading: str
) -> Image.Image:
    """One picture: a row for each subject, a column for each prompt."""
    places = [(o, n) for o in range(len(subjects)) for n in range(len(p.prompts))]
    requests = [
        ImageRequest(subjects[o].prompts[n], (o,), seed_for(seed, "validation", i)) for i, (o, n) in enumerate(places)
    ]
    images = list(draw(pipeline, requests, pipeline.encode_objects([s.image for s in subjects]), p.sampling))
    width = len(p.prompts)
    rows = [[Cell(s.image), *map(Cell, images[i * width : (i + 1) * width])] for i, s in enumerate(subjects)]
    return grid(heading, ["subject", *p.prompts], rows, SIDE)
