"""Drawing functions of the painters: grids, noise, colours, and shapes drawn by Pillow."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator
from PIL import Image, ImageDraw

SIDE = 176  # pixels; a photo is a window of 128 or more of them

Picture = Float[np.ndarray, "176 176 3"]  # RGB in [0, 1]
Plane = Float[np.ndarray, "176 176"]
Mask = Bool[np.ndarray, "176 176"]
Colour = Float[np.ndarray, "3"] | tuple[float, float, float]

Y, X = np.mgrid[0:SIDE, 0:SIDE] / SIDE  # (0, 0) is the upper left corner


def stretched(rng: Generator, rows: int, columns: int) -> Plane:
    """White noise in [0, 1] on a coarse grid, upsampled smoothly."""
    grid = Image.fromarray(rng.random((rows, columns)).astype(np.float32))
    return np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.float64)


def noise(rng: Generator, cells: Sequence[int] = (4, 8, 16, 32), fade: float = 0.5) -> Plane:
    """Octave noise in [0, 1]; each octave has `fade` times the weight of the previous one."""
    octaves = np.stack([stretched(rng, n, n) for n in cells])
    return np.average(octaves, axis=0, weights=[fade**k for k in range(len(cells))])


def grain(rng: Generator, low: float, reach: float, cells: Sequence[int], fade: float = 0.5) -> Picture:
    """Noise as a factor for a colour, from `low` to `low + reach`."""
    return (low + reach * noise(rng, cells, fade))[..., None]


def tinted(rng: Generator, colour: Colour, spread: float = 0.06) -> Float[np.ndarray, "3"]:
    """The colour with random jitter."""
    return np.clip(np.asarray(colour) + rng.uniform(-spread, spread, 3), 0, 1)


def blend(below: Picture | Colour, above: Picture | Colour, amount: Plane) -> Picture:
    """From `below`, where amount is 0, to `above`, where it is 1."""
    a = amount[..., None]
    return np.asarray(below) * (1 - a) + np.asarray(above) * a


def over(picture: Picture, paint: Picture | Colour | float, mask: Mask) -> Picture:
    """The picture with `paint` where the mask is set."""
    return np.where(mask[..., None], paint, picture)


def gradient(rng: Generator, top: Colour, bottom: Colour) -> Picture:
    """A vertical gradient between two jittered colours."""
    return blend(tinted(rng, top), tinted(rng, bottom), Y)


def clouds(rng: Generator, picture: Picture, above: float, amount: float) -> Picture:
    """White clouds over the part of the picture that lies above the line `above`."""
    return blend(picture, (1, 1, 1), np.clip((noise(rng, (3, 6, 12, 24, 48)) - 0.5) * 5, 0, 1) * amount * (above > Y))


def wave(rng: Generator, low: float, high: float) -> Plane:
    """A sine along x with `low` to `high` radians across the picture."""
    return np.sin(X * rng.uniform(low, high) + rng.uniform(0, 6))


def canvas(picture: Picture) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """The picture as a Pillow image and its drawing context."""
    image = Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
    return image, ImageDraw.Draw(image)


def painted(image: Image.Image) -> Picture:
    """A Pillow image as a picture in [0, 1]."""
    return np.asarray(image) / 255


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, **how: object) -> None:
    """A circle; `how` is `fill` or `outline`."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), **how)  # pyright: ignore[reportArgumentType]


def specks(rng: Generator, draw: ImageDraw.ImageDraw, count: int, smallest: float, largest: float) -> None:
    """White dots: snow or stars."""
    for _ in range(count):
        disc(draw, rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(smallest, largest), fill="white")


def pine(draw: ImageDraw.ImageDraw, x: float, foot: float, height: float, green: tuple[int, ...]) -> None:
    """A tree of three triangles, one above the other."""
    for k in range(3):
        half, base = height * 0.14 * (k + 1.3), foot - height * (0.45 - 0.22 * k)
        draw.polygon([(x, foot - height * (1 - 0.2 * k)), (x - half, base), (x + half, base)], fill=green)


def rgb8(colour: Colour) -> tuple[int, int, int]:
    """The colour as integers from 0 to 255."""
    red, green, blue = (int(255 * np.clip(c, 0, 1)) for c in colour)
    return red, green, blue
