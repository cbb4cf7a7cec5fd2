"""Fixed pictures that show during training whether it works: a few objects and prompts, always the same seeds."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

from taming_core.batches import opened
from taming_core.config import ValidationGrid
from taming_core.customize import TamingPipeline
from taming_core.images import Order, draw
from taming_core.rows import Rows
from taming_core.seeds import seed_for
from taming_core.sheets import GAP, INK, LINE, PAD, PAPER, font, tiled, wrapped


def shown_rows(validation: Rows, training: Rows) -> Rows:
    """Where the objects of the grid come from: the validation split, or the training split where that has none."""
    return validation if len(validation.objects) else training


def grid_subjects(rows: Rows, count: int) -> list[Image.Image]:
    """The subjects (RGBA) of the first `count` identities."""
    identities = rows.column("identity")
    first = {identities[i]: int(i) for i in reversed(rows.objects)}
    return [opened(rows[i]["subject"]) for i in sorted(first.values())[:count]]


@torch.no_grad()
def draw_grid(pipeline: TamingPipeline, subjects: Sequence[Image.Image], p: ValidationGrid, seed: int) -> Image.Image:
    """One picture: a row for each subject, a column for each prompt."""
    places = [(o, n) for o in range(len(subjects)) for n in range(len(p.prompts))]
    orders = [Order(p.prompts[n], o, seed_for(seed, "validation", i)) for i, (o, n) in enumerate(places)]
    images = list(draw(pipeline, orders, pipeline.encode_objects(subjects), p.sampling))
    width = len(p.prompts)
    return grid([[s, *images[i * width : (i + 1) * width]] for i, s in enumerate(subjects)], ["subject", *p.prompts])


def grid(pictures: Sequence[Sequence[Image.Image]], headings: Sequence[str], side: int = 160) -> Image.Image:
    """Pictures in rows, with a heading above each column; `side` in pixels."""
    heads = [wrapped(h, font(), side) for h in headings]
    top, step = PAD + LINE * max(len(h) for h in heads), side + GAP
    sheet = Image.new("RGB", (GAP + step * len(headings), top + PAD + step * len(pictures)), PAPER)
    for column, lines in enumerate(heads):
        ImageDraw.Draw(sheet).multiline_text((GAP + column * step, PAD), "\n".join(lines), INK, font(), spacing=2)
    for row, line in enumerate(pictures):
        for column, picture in enumerate(line):
            sheet.paste(tiled(picture, side), (GAP + column * step, top + PAD + row * step))
    return sheet
