"""The photographed scenes of the mini world: square windows of wallpapers."""

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from pipelines.mini.brushes import SIDE, Picture

SHORTER = 640  # pixels of the downscaled wallpaper, so that a window has no finer detail than a photo


def open_wallpaper(path: Path) -> Image.Image:
    """The wallpaper, downscaled to a shorter side of SHORTER pixels."""
    picture = Image.open(path).convert("RGB")
    scale = SHORTER / min(picture.size)
    return picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.LANCZOS)


def window(picture: Image.Image, closest: float, rng: Generator) -> Picture:
    """A random square crop, its side between `closest` and 1 of the shorter side."""
    side = int(rng.uniform(closest, 1) * min(picture.size))
    left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
    part = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(part) / 255
