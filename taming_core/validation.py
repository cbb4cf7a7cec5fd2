"""Fixed pictures that show during training whether it works: a few objects and prompts, always the same seeds."""

from collections.abc import Sequence

import torch
from PIL import Image

from taming_core.batches import opened
from taming_core.config import ValidationGrid
from taming_core.customize import TamingPipeline
from taming_core.grid import Cell, grid
from taming_core.images import Order, draw
from taming_core.rows import Rows
from taming_core.seeds import seed_for

SIDE = 160  # pixels of a picture in the grid


def shown_rows(validation: Rows, training: Rows) -> Rows:
    """Where the objects of the grid come from: the validation split, or the training split where that has none."""
    return validation if len(validation.objects) else training


def grid_subjects(rows: Rows, count: int) -> list[Image.Image]:
    """The subjects (RGBA) of the first `count` identities."""
    identities = rows.column("identity")
    first = {identities[i]: int(i) for i in reversed(rows.objects)}
    return [opened(rows[i]["subject"]) for i in sorted(first.values())[:count]]


@torch.no_grad()
def draw_grid(
    pipeline: TamingPipeline, subjects: Sequence[Image.Image], p: ValidationGrid, seed: int, heading: str
) -> Image.Image:
    """One picture: a row for each subject, a column for each prompt."""
    places = [(o, n) for o in range(len(subjects)) for n in range(len(p.prompts))]
    orders = [Order(p.prompts[n], o, seed_for(seed, "validation", i)) for i, (o, n) in enumerate(places)]
    images = list(draw(pipeline, orders, pipeline.encode_objects(subjects), p.sampling))
    width = len(p.prompts)
    rows = [[Cell(s), *map(Cell, images[i * width : (i + 1) * width])] for i, s in enumerate(subjects)]
    return grid(heading, ["subject", *p.prompts], rows, SIDE)
