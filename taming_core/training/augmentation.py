"""Augmentation of a subject: rotation, perspective and lighting (numpy and PIL only).

Cross-reference regularization needs a subject that differs from the target in pose, light and crop; an augmented copy
replaces the missing views of an identity. It is never mirrored: that would change the identity of asymmetric objects.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.params.train import Augmentation


def augment(subject: Image.Image, p: Augmentation, rng: np.random.Generator) -> Image.Image:
    """A randomly warped and relit copy of a square RGBA cut-out; nothing is cropped, and hues do not change."""
    return relight(warp(subject, random_corners(p, rng)), rng.uniform(-p.light, p.light, 3) / 3)


def random_corners(p: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """New corners (4, 2) of the square [-1, 1]^2: rotated, each shifted, then shrunk to fit the square."""
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    angle = np.deg2rad(rng.uniform(-p.rotation, p.rotation))
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = square @ rotation + rng.uniform(-2 * p.perspective, 2 * p.perspective, (4, 2))
    return moved / max(np.abs(moved).max(), 1)


def warp(subject: Image.Image, corners: NDArray[np.float64]) -> Image.Image:
    """The square image with its corners moved to `corners` (4, 2), in [-1, 1]."""
    size = subject.width
    source = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)
    x, y = ((corners + 1) / 2 * size).T
    u, v = source.T
    # The homography from the new image to the original, with last entry 1: two equations per corner.
    zero, one = np.zeros(4), np.ones(4)
    equations = np.concatenate([
        np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 1),
        np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 1),
    ])  # fmt: skip
    homography = np.linalg.solve(equations, np.concatenate([u, v]))
    return subject.transform(subject.size, Image.Transform.PERSPECTIVE, tuple(homography), Image.Resampling.BICUBIC)


def relight(subject: Image.Image, light: NDArray[np.float64]) -> Image.Image:
    """The image times 1 + light[0] + light[1] x + light[2] y, with x and y in [-1, 1] (right and down)."""
    rgba = np.asarray(subject, np.float64)
    y, x = np.linspace(-1, 1, rgba.shape[0])[:, None], np.linspace(-1, 1, rgba.shape[1])[None]
    gain = 1 + light[0] + light[1] * x + light[2] * y
    colour = np.clip(rgba[..., :3] * gain[..., None], 0, 255)
    return Image.fromarray(np.concatenate([colour, rgba[..., 3:]], 2).round().astype(np.uint8))
