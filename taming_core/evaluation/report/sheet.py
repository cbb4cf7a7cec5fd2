"""sheet.png: the pictures of the report as one image."""

from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image

from taming_core.evaluation.conditions import OURS
from taming_core.evaluation.report.cards import Card, Shot, cards, cell, compared, prompts
from taming_core.evaluation.report.comparison import BASELINES, LABELS
from taming_core.evaluation.result import Evaluation
from taming_core.figures import image_grid
from taming_core.figures.image_grid import Cell

MAX_SUBJECTS = 48  # on the sheet


def sheet(e: Evaluation) -> Image.Image:
    """Each object beside its prompts; below, where there are baselines, its first prompt in each condition."""
    some, asked, side = cards(e)[:MAX_SUBJECTS], prompts(e), _tile_side(e)
    heading = f"Objects that no model in the chain has seen ({len(e.subjects)} of the {e.params.split} split)"
    columns = ["the object", *(a.removesuffix(" of") for a in asked)]
    rows = [[_name(c), *_row({s.prompt_number: s for s in c.shots if s.condition == OURS}, range(len(asked)))]
            for c in some]  # fmt: skip
    ours = image_grid.grid(heading, columns, rows, side)
    if not any(b in e.summary for b in BASELINES):
        return ours
    drawn = [c for c in LABELS if any(s.condition == c for card in some for s in compared(card, 0))]
    beside = [[_name(c), *_row({s.condition: s for s in compared(c, 0)}, drawn)] for c in some]
    names = ["the object", *(LABELS[c] for c in drawn)]
    return image_grid.stack([ours, image_grid.grid(f"The same prompt, {columns[1]}", names, beside, side)])


def _name(card: Card) -> Cell:
    return Cell(card.seen.picture, card.subject.identity)


def _row(shots: Mapping[Any, Shot], keys: Iterable[Any]) -> list[Cell]:
    """The pictures in the order of columns."""
    return [cell(shots[key]) if key in shots else Cell(None) for key in keys]


def _tile_side(e: Evaluation) -> int:
    """Side in pixels of a picture: the width of the widest image, at most 192."""
    return min(max((i.width for i in e.images), default=128), 192)
