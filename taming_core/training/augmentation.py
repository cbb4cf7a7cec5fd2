"""Another view of a thing that was photographed once: turned, tilted, relit (numpy and PIL only).

Cross-reference regularization needs a subject that differs from the target in pose, light and crop; where an identity
has a single photo this stands in. It is never mirrored: a mirrored asymmetric thing is another thing.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.params.train import Augmentation


def augment(subject: Image.Image, p: Augmentation, rng: np.random.Generator) -> Image.Image:
    """The cut-out (RGBA, square) seen a little differently; nothing is cut off, and no colour changes its hue."""
    return relight(warp(subject, random_corners(p, rng)), rng.uniform(-p.light, p.light, 3) / 3)


def random_corners(p: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """Where the corners (4, 2) of the square -1..1 go: turned, each shifted, then shrunk back into the square."""
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    angle = np.deg2rad(rng.uniform(-p.rotation, p.rotation))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = square @ turn + rng.uniform(-2 * p.perspective, 2 * p.perspective, (4, 2))
    return moved / max(np.abs(moved).max(), 1)


def warp(subject: Image.Image, to: NDArray[np.float64]) -> Image.Image:
    """The square picture with its corners moved to `to` (4, 2), in -1..1."""
    size = subject.width
    source = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)
    x, y = ((to + 1) / 2 * size).T
    u, v = source.T
    # The homography that leads from the new picture back to the old, its last entry 1: two equations a corner.
    zero, one = np.zeros(4), np.ones(4)
    equations = np.concatenate([
        np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 1),
        np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 1),
    ])  # fmt: skip
    back = np.linalg.solve(equations, np.concatenate([u, v]))
    return subject.transform(subject.size, Image.Transform.PERSPECTIVE, tuple(back), Image.Resampling.BICUBIC)


def relight(subject: Image.Image, light: NDArray[np.float64]) -> Image.Image:
    """The picture brighter by a share that is `light` (3,): everywhere, growing to the right, growing downwards."""
    rgba = np.asarray(subject, np.float64)
    y, x = np.linspace(-1, 1, rgba.shape[0])[:, None], np.linspace(-1, 1, rgba.shape[1])[None]
    gain = 1 + light[0] + light[1] * x + light[2] * y
    colour = np.clip(rgba[..., :3] * gain[..., None], 0, 255)
    return Image.fromarray(np.concatenate([colour, rgba[..., 3:]], 2).round().astype(np.uint8))
