"""Grids of images with captions, as one PNG (PIL only)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from taming_core.figures.contact_sheet import fit_tile, font, wrap_text
from taming_core.files import replacing

PAPER, INK, FAINT, GOOD, BAD = "#ffffff", "#1d2025", "#6d727a", "#2b7a4b", "#b3382c"
GAP, MARGIN, LINE = 8, 28, 16  # pixels


@dataclass(frozen=True)
class Cell:
    """One image and its note."""

    picture: Image.Image | None
    note: str = ""
    good: bool | None = None  # colour of the note: green, red, or grey for None


def grid(heading: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], side: int) -> Image.Image:
    """Images `side` pixels wide under column captions; the first column is set apart."""
    width = 2 * MARGIN + len(columns) * (side + GAP) + GAP
    head = wrap_text(heading, font(bold=True, size=17), width - 2 * MARGIN)
    captions = [wrap_text(c, font(bold=True, size=12), side) for c in columns]
    notes = max((len(_lines(cell, side)) for row in rows for cell in row), default=0)
    top = MARGIN + 24 * len(head) + GAP + LINE * max(map(len, captions)) + GAP
    step = side + LINE * notes + 2 * GAP
    sheet = Image.new("RGB", (width, top + step * len(rows) + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(head):
        draw.text((MARGIN, MARGIN + 24 * i), line, INK, font(bold=True, size=17))
    for column, lines in enumerate(captions):
        for i, line in enumerate(reversed(lines)):
            at = _left(column, side), top - GAP - LINE * (i + 1)
            draw.text(at, line, INK if column == 0 else FAINT, font(bold=True, size=12))
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            _paste(sheet, draw, cell, (_left(column, side), top + step * number), side)
    return sheet


def stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets below each other."""
    sheet = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), PAPER)
    for i, part in enumerate(sheets):
        sheet.paste(part, (0, sum(s.height for s in sheets[:i])))
    return sheet


def _left(column: int, side: int) -> int:
    return MARGIN + column * (side + GAP) + (GAP if column else 0)


def _lines(cell: Cell, side: int) -> list[str]:
    return wrap_text(cell.note, font(size=10), side) if cell.note else []


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, at: tuple[int, int], side: int) -> None:
    """One image with its note below."""
    if cell.picture is not None:
        sheet.paste(fit_tile(cell.picture, side), at)
    ink = {True: GOOD, False: BAD, None: FAINT}[cell.good]
    for i, line in enumerate(_lines(cell, side)):
        draw.text((at[0], at[1] + side + 4 + LINE * i), line, ink, font(size=10))


def save(sheet: Image.Image, out: Path) -> None:
    """Write the sheet as PNG."""
    with replacing(out) as part:
        sheet.save(part, "PNG")
