"""Contact sheets: rows of a table as cards with images, in one PNG or one HTML file (numpy and PIL only)."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from taming_core.errors import TamingError
from taming_core.files import replacing, require_out_file, write_text
from taming_core.storage.paths import AnyPath

PAPER, CARD, INK, FAINT = "#eceae6", "#ffffff", "#22252a", "#7a7f87"
KEPT, DROPPED, OUTLINE, BOX = "#2e8b57", "#c0392b", "#ff2fb3", "#ffe14d"
PROGRAM = "taming inspect"  # that sheets name as the one that made them
GAP, PAD, LINE = 14, 10, 18  # pixels
WIDTH = 1320  # pixels of a sheet, about


@dataclass(frozen=True)
class Card:
    """One row of a table on a contact sheet."""

    pictures: tuple[Image.Image, ...]  # RGB or RGBA, any size
    title: str
    lines: tuple[str, ...]
    drop_reason: str | None


def draw_outlines(
    image: NDArray[np.uint8], mask: NDArray[np.bool_] | None, box_xyxy: Sequence[int] | None, side: int
) -> Image.Image:
    """A photo (H, W, 3), its longer side scaled to `side`, with the outlines of mask and box."""
    scale = side / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    if mask is not None:
        inside = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST).convert("L")
        edge = ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(5)), inside)
        picture.paste(OUTLINE, mask=edge)
    if box_xyxy is not None:
        corners = [min(round(v * scale), size[i % 2] - 1) for i, v in enumerate(box_xyxy)]
        ImageDraw.Draw(picture).rectangle(corners, outline=BOX, width=2)
    return picture


def text_tile(text: str, side: int) -> Image.Image:
    """A grey square with a text in place of an image."""
    tile = Image.new("RGB", (side, side), "#d5d3ce")
    draw, lines = ImageDraw.Draw(tile), wrap_text(text, font(), side - 2 * PAD)
    top = (side - LINE * len(lines)) // 2
    for i, line in enumerate(lines):
        draw.text((side // 2, top + LINE * i), line, INK, font(), anchor="ma")
    return tile


@lru_cache
def font(bold: bool = False, size: int = 13) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def wrap_text(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The text in lines of at most `width` pixels; longer words are broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
            continue
        pieces = list(_break_word(word, face, width))
        lines = [*lines, *pieces] if lines[-1] else pieces
    return lines


def _break_word(word: str, face: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """Parts of a word that fit `width`, each as long as possible."""
    while face.getlength(word) > width and len(word) > 1:
        end = max(next(i for i in range(1, len(word) + 1) if face.getlength(word[:i]) > width) - 1, 1)
        yield word[:end]
        word = word[end:]
    yield word


def fit_tile(picture: Image.Image, side: int) -> Image.Image:
    """An image scaled into a square tile, over a checkerboard where it is transparent."""
    small = ImageOps.contain(picture, (side, side), Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (side, side), "#f4f3f0")
    corner = (side - small.width) // 2, (side - small.height) // 2
    if small.mode == "RGBA":
        tile.paste(_checkerboard(small.size), corner)
    tile.paste(small, corner, small if small.mode == "RGBA" else None)
    return tile


def _checkerboard(size: tuple[int, int], cell: int = 10) -> Image.Image:
    y, x = np.indices((size[1], size[0])) // cell
    return Image.fromarray(np.where((x + y) % 2, 255, 224).astype(np.uint8)).convert("RGB")


def sheet_image(cards: Sequence[Card], heading: str, side: int) -> Image.Image:
    """The sheet as one image: a heading, and cards in as many columns as fit, images `side` pixels wide."""
    count = max(len(c.pictures) for c in cards)
    width = count * side + (count - 1) * PAD + 2 * PAD
    columns = max(min(len(cards), (WIDTH - GAP) // (width + GAP)), 1)
    drawn = [_draw_card(c, side, width) for c in cards]
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    head = wrap_text(heading, font(bold=True, size=16), columns * (width + GAP) - GAP)
    top = 2 * GAP + 22 * len(head)
    height = top + sum(max(c.height for c in row) + GAP for row in rows)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, height), PAPER)
    for i, line in enumerate(head):
        ImageDraw.Draw(sheet).text((GAP, GAP + 22 * i), line, INK, font(bold=True, size=16))
    for row in rows:
        tallest = max(c.height for c in row)
        for i, card in enumerate(row):
            left = GAP + i * (width + GAP)
            sheet.paste(CARD, (left, top, left + width, top + tallest))
            sheet.paste(card, (left, top))
        top += tallest + GAP
    return sheet


def _draw_card(card: Card, side: int, width: int) -> Image.Image:
    """One card, as high as its text requires."""
    texts = [(line, face, ink) for text, face, ink in _texts(card) for line in wrap_text(text, face, width - 2 * PAD)]
    picture = Image.new("RGB", (width, side + 3 * PAD + LINE * len(texts)), CARD)
    for i, image in enumerate(card.pictures):
        picture.paste(fit_tile(image, side), (PAD + i * (side + PAD), PAD))
    draw = ImageDraw.Draw(picture)
    for i, (line, face, ink) in enumerate(texts):
        _write(draw, (PAD, side + 2 * PAD + LINE * i), line, face, ink)
    return picture


def _texts(card: Card) -> list[tuple[str, ImageFont.FreeTypeFont, str]]:
    status = ("kept", font(), KEPT) if card.drop_reason is None else (f"dropped: {card.drop_reason}", font(), DROPPED)
    return [(card.title, font(bold=True), INK), *((line, font(), INK) for line in card.lines), status]


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], line: str, face: ImageFont.FreeTypeFont, ink: str
) -> None:
    """One line of text, with `<object>` coloured."""
    x, y = at
    for word in line.split(" "):
        draw.text((x, y), word, OUTLINE if "<object>" in word else ink, face)
        x += face.getlength(word + " ")


def save(cards: Sequence[Card], heading: str, side: int, out: Path) -> None:
    """Write the sheet as .png or .html.

    Raises:
        TamingError: the name has another suffix.
    """
    check_name(out)
    if out.suffix == ".html":
        write_text(out, sheet_html(cards, heading, side))
    else:
        with replacing(out) as part:
            sheet_image(cards, heading, side).save(part, "PNG", pnginfo=_made_by())


def _made_by() -> PngInfo:
    """The keyword of the PNG specification for the program that made a file."""
    info = PngInfo()
    info.add_text("Software", PROGRAM)
    return info


def check_name(out: Path) -> None:
    """Raises TamingError if the name ends in neither .png nor .html."""
    if out.suffix not in (".png", ".html"):
        raise TamingError(f"{out} is neither a .png nor a .html file. Name the sheet with --out sheet.png.")


def require_sheet_out(out: Path, *inputs: AnyPath) -> None:
    """Check before the work that a sheet can be written, and that it replaces nothing but a sheet.

    Raises:
        TamingError: as `files.require_out_file`, or `out` is another file.
    """
    check_name(out)
    require_out_file(out, "sheet.png", inputs)
    if out.exists() and PROGRAM.encode() not in out.read_bytes()[:1000]:
        raise TamingError(f"{out} is another file than a contact sheet. Name a new file with --out.")


def sheet_html(cards: Sequence[Card], heading: str, side: int) -> str:
    """The sheet as a self-contained HTML page."""
    figures = "\n".join(_figure(card, side) for card in cards)
    colours = {"kept": KEPT, "dropped": DROPPED, "mark": OUTLINE, "paper": PAPER}
    return PAGE.format(heading=escape(heading), figures=figures, program=PROGRAM, **colours)


def _figure(card: Card, side: int) -> str:
    pictures = "".join(f'<img alt="" src="{_data_url(fit_tile(p, side))}">' for p in card.pictures)
    lines = "".join(f"<p>{_highlight(line)}</p>" for line in card.lines)
    kind, status = ("kept", "kept") if card.drop_reason is None else ("dropped", f"dropped: {card.drop_reason}")
    return (
        f"<figure>{pictures}<figcaption><b>{escape(card.title)}</b>{lines}"
        f'<p class="{kind}">{escape(status)}</p></figcaption></figure>'
    )


def _highlight(line: str) -> str:
    return escape(line).replace("&lt;object&gt;", "<mark>&lt;object&gt;</mark>")


def _data_url(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="generator" content="{program}"><title>{heading}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; background: {paper}; color: #22252a; margin: 1.5rem }}
main {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: stretch }}
figure {{ background: #fff; margin: 0; padding: .75rem; width: min-content; white-space: nowrap }}
figcaption {{ white-space: normal }}
img + img {{ margin-left: .6rem }}
h1 {{ font-size: 1.2rem }}
p {{ margin: .15rem 0; overflow-wrap: anywhere }}
mark {{ background: none; color: {mark} }}
.kept {{ color: {kept} }} .dropped {{ color: {dropped} }}
</style>
<h1>{heading}</h1>
<main>
{figures}
</main>
</html>
"""
