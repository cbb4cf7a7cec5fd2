"""Emoji artwork of a design, by code points, as cut-outs of one size."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from pipelines.mini.sources import Design

SIDE = 128  # of a cut-out, in pixels
CONTENT = 120  # its longer side without the margin
RASTER = 256  # pixels that vector artwork is drawn at, before downscaling
VISIBLE = 24 / 255  # smallest alpha that counts as content
COVERAGE = (0.10, 0.86)  # smallest and largest share of opaque pixels: less is hardly visible, more has no shape

Read = Callable[[str], Image.Image | None]  # code points -> artwork, None if the design lacks it
Art = Float[np.ndarray, "height width 4"]  # RGBA in [0, 1], not premultiplied


def reader(design: Design, folder: Path) -> Read:
    """A function that reads the artwork of a design from the folder of its package."""
    return _icons(folder) if design.files == "icons.json" else _files(folder, design.files)


def spellings(codepoints: str) -> list[str]:
    """The file names that artwork may have: with and without the variation selector.

    >>> spellings("2764-FE0F")
    ['2764-fe0f', '2764', '2764-fe0f-fe0f']
    """
    full = codepoints.lower()
    short = "-".join(point for point in full.split("-") if point != "fe0f")
    return list(dict.fromkeys([full, short, f"{full}-fe0f", f"{short}-fe0f"]))


def _files(folder: Path, pattern: str) -> Read:
    """Packages with one file per emoji, its name in lower or upper case."""

    def read(codepoints: str) -> Image.Image | None:
        for name in spellings(codepoints):
            for path in (folder / pattern.format(name), folder / pattern.format(name.upper())):
                if path.is_file():
                    return rendered(path.read_text("utf-8")) if path.suffix == ".svg" else Image.open(path)
        return None

    return read


def _icons(folder: Path) -> Read:
    """Packages with all emoji in one iconify file, and a table from code points to names."""
    icons = json.loads((folder / "icons.json").read_text("utf-8"))
    names = json.loads((folder / "chars.json").read_text("utf-8"))
    aliases = {name: alias["parent"] for name, alias in icons["aliases"].items()}
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {icons["width"]} {icons["height"]}">{{}}</svg>'

    def read(codepoints: str) -> Image.Image | None:
        name = next((names[s] for s in spellings(codepoints) if s in names), None)
        return name and rendered(frame.format(icons["icons"][aliases.get(name, name)]["body"]))

    return read


def rendered(svg: str) -> Image.Image:
    """Rasterize an SVG to RGBA."""
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_string=svg, width=RASTER, height=RASTER, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)))


def canonical(image: Image.Image) -> Art | None:
    """The artwork without its margin, centred and scaled to one size; None if it has no visible pixel."""
    art = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    visible = np.asarray(art[..., 3] > VISIBLE)
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not len(rows):
        return None
    art = art[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = CONTENT / max(art.shape[:2])
    small = resized(art, *(max(4, round(side * scale)) for side in art.shape[:2]))
    height, width = small.shape[:2]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    out = np.zeros((SIDE, SIDE, 4), np.float32)
    out[top : top + height, left : left + width] = small
    return out


def resized(art: Art, height: int, width: int) -> Art:
    """Lanczos resampling of premultiplied colours, so that transparent pixels leave no fringe."""
    premultiplied = art * np.concatenate([art[..., 3:].repeat(3, -1), np.ones_like(art[..., 3:])], -1)
    channels = [
        Image.fromarray(c).resize((width, height), Image.Resampling.LANCZOS) for c in np.moveaxis(premultiplied, -1, 0)
    ]
    small = np.stack([np.asarray(c) for c in channels], -1).clip(0, 1)
    alpha = small[..., 3:]
    colour = np.where(alpha > 1e-3, small[..., :3] / np.maximum(alpha, 1e-3), 0).clip(0, 1)
    return np.concatenate([colour, alpha], -1)


def is_usable(art: Art) -> bool:
    """Whether the share of opaque pixels is within COVERAGE."""
    return COVERAGE[0] <= (art[..., 3] > 0.5).mean() <= COVERAGE[1]


def dominant_colour(art: Art) -> list[float]:
    """The mean colour, RGB in [0, 1], weighted by alpha and saturation.

    >>> half_red = np.ones((1, 2, 4)) * [[[1, 0, 0, 1], [0.5, 0.5, 0.5, 1]]]
    >>> dominant_colour(half_red)
    [0.9773, 0.0227, 0.0227]
    """
    rgb, alpha = art[..., :3].astype(np.float64), art[..., 3].astype(np.float64)
    weight = alpha * (0.05 + rgb.max(-1) - rgb.min(-1))
    return [round(float(c), 4) for c in (rgb * weight[..., None]).sum((0, 1)) / weight.sum()]


def encoded(art: Art) -> bytes:
    """The cut-out as WebP; alpha is compressed more strongly than colour, which is not visible."""
    buffer = io.BytesIO()
    Image.fromarray((art * 255 + 0.5).astype(np.uint8)).save(buffer, "WEBP", quality=85, alpha_quality=70, method=6)
    return buffer.getvalue()
