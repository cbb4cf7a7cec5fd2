"""Does the thing in an image have the subject's shape? Silhouettes and edges, compared after the best alignment.

Judges forgive bent shapes, so this stands beside them (our choice).
Place, size, tilt and mirroring are free, for a prompt may ask for them; everything else counts. numpy and PIL only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.photos.masks import mask_box

SIDE = 64  # pixels of the canvas that both things are brought to
RADIUS = 14  # pixels on it: root mean square distance of a thing's pixels from their middle
DEGREES, SCALES = np.arange(-35, 36, 7), 1.1 ** np.arange(-2, 3)
FINE_DEGREES, FINE_SCALES = np.arange(-4, 5, 2), 1.03 ** np.arange(-2, 3)
SHIFT = 8  # pixels that the middles may lie apart
CANDIDATES = 12  # poses that fit best by silhouette, of which the edges choose
TOLERANCE = 1.5  # pixels that two edges may lie apart
CONTRAST = 0.35  # an edge is this steep, as a share of the thing's steepest

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class CanvasObject:
    """A thing brought to the canvas, in its own orientation."""

    mask: Mask  # (SIDE, SIDE)
    edges: Mask  # (SIDE, SIDE) outline and inner edges
    near: Mask  # (SIDE, SIDE) no further than TOLERANCE from an edge


@dataclass(frozen=True)
class Shape:
    """How well two shapes agree, and the pose that says so."""

    iou: float  # of the silhouettes, in [0, 1]
    edges: float  # F1 of the edges, in [0, 1]
    degrees: float  # clockwise turn from the subject to the found thing
    flipped: bool  # mirrored

    @property
    def agreement(self) -> float:
        """Geometric mean of both: one cannot make up for the other."""
        return float(np.sqrt(self.iou * self.edges))


class Pose(NamedTuple):
    """From canvas to canvas: mirror, turn, scale about the middle, then shift; P of them at once, or one."""

    degrees: Floats
    scale: Floats
    flipped: NDArray[np.bool_]
    shift: Floats  # (P, 2) x, y in pixels

    def matrix(self) -> Floats:
        """(P, 2, 2), for column vectors x, y."""
        turn, mirror = np.deg2rad(self.degrees), np.where(self.flipped, -1.0, 1.0)
        cos, sin = self.scale * np.cos(turn), self.scale * np.sin(turn)
        return np.stack([np.stack([mirror * cos, -sin], -1), np.stack([mirror * sin, cos], -1)], -2)

    def take(self, at: NDArray[np.int64]) -> "Pose":
        """Some of the poses."""
        return Pose(self.degrees[at], self.scale[at], self.flipped[at], self.shift[at])


def compare(subject: CanvasObject, found: CanvasObject) -> Shape:
    """The agreement of two things in the pose that suits them best."""
    poses, iou = fitted(subject.mask, found.mask, grid(DEGREES, SCALES, [False, True]))
    chosen = np.concatenate([best_of(iou, poses.flipped == side, CANDIDATES // 2) for side in (False, True)])
    poses, iou = poses.take(chosen), iou[chosen]
    best = poses.take(np.array([np.argmax(iou * edge_scores(subject, found, poses))]))
    near = grid(best.degrees[0] + FINE_DEGREES, best.scale[0] * FINE_SCALES, [bool(best.flipped[0])])
    poses, iou = fitted(subject.mask, found.mask, near)
    edges = edge_scores(subject, found, poses)
    at = int(np.argmax(iou * edges))
    return Shape(float(iou[at]), float(edges[at]), float(poses.degrees[at]), bool(poses.flipped[at]))


def to_canvas(image: NDArray[np.uint8], mask: Mask) -> CanvasObject:
    """The thing of `mask` (H, W) in `image` (H, W, 3) brought to the canvas.

    Raises:
        ValueError: no pixel of the mask is true.
    """
    mask_box(mask)
    y, x = (positions.astype(np.float64) for positions in np.nonzero(mask))
    radius = max(float(np.sqrt(x.var() + y.var())), 1.0)
    half = round(radius * SIDE / RADIUS / 2)
    left, top = round(x.mean() + 0.5) - half, round(y.mean() + 0.5) - half
    # Alpha first: PIL resizes RGBA premultiplied, so the ground does not bleed into the thing.
    rgba = Image.fromarray(np.dstack([image, mask * np.uint8(255)]))
    seen = np.asarray(
        rgba.crop((left, top, left + 2 * half, top + 2 * half)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    )
    silhouette = seen[..., 3] > 127
    edges = outline(silhouette) | inner_edges(seen[..., :3].astype(np.float64), silhouette)
    return CanvasObject(silhouette, edges, dilate(edges, TOLERANCE))


def outline(mask: Mask) -> Mask:
    """The pixels of a mask that touch its outside."""
    return mask & ~erode(mask, 1)


def inner_edges(colour: Floats, mask: Mask) -> Mask:
    """Where the colour (H, W, 3) changes most steeply, two pixels or more inside the mask: thinned to ridges."""
    dy, dx = np.gradient(colour, axis=(0, 1))
    across, down = np.sqrt((dx**2).sum(-1)), np.sqrt((dy**2).sum(-1))
    steep = np.hypot(across, down) * erode(mask, 2)
    ridge = np.where(across > down, is_peak(steep, 1), is_peak(steep, 0))
    return ridge & (steep > max(CONTRAST * float(np.max(steep, initial=0)), 4.0))


def is_peak(values: Floats, axis: int) -> Mask:
    """Pixels that are no lower than both neighbours along an axis."""
    return (values >= np.roll(values, 1, axis)) & (values >= np.roll(values, -1, axis))


def dilate(mask: Mask, radius: float) -> Mask:
    """All pixels within `radius` of the mask; what leaves the canvas is lost."""
    reach = int(radius)
    padded = np.pad(mask, reach)
    out = np.zeros_like(mask)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= radius * radius:
                out |= padded[reach + dy : reach + dy + len(mask), reach + dx : reach + dx + mask.shape[1]]
    return out


def erode(mask: Mask, radius: float) -> Mask:
    """The pixels of the mask that are further than `radius` from its outside."""
    return ~dilate(~mask, radius)


def grid(degrees: NDArray[np.number], scales: Floats, flips: Iterable[bool]) -> Pose:
    """Every combination, without shift."""
    d, s, f = (axis.ravel() for axis in np.meshgrid(degrees, scales, list(flips), indexing="ij"))
    return Pose(d.astype(np.float64), s, f, np.zeros((len(d), 2)))


def fitted(subject: Mask, found: Mask, poses: Pose) -> tuple[Pose, Floats]:
    """Each pose with the shift that makes the silhouettes overlap most, and the IoU (P,) there."""
    moved = warped(subject, poses)
    spectrum = np.fft.rfft2(found) * np.conj(np.fft.rfft2(moved))
    shared = np.fft.irfft2(spectrum, s=found.shape).round()  # at each cyclic shift
    reach = np.r_[-SHIFT : SHIFT + 1]
    shared = shared[:, reach[:, None], reach[None, :]].reshape(len(moved), -1)
    at = shared.argmax(1)
    overlap = shared[np.arange(len(at)), at]
    union = moved.sum((1, 2)) + found.sum() - overlap
    shift = np.stack([reach[at % len(reach)], reach[at // len(reach)]], -1).astype(np.float64)
    return poses._replace(shift=shift), overlap / np.maximum(union, 1)


def warped(mask: Mask, poses: Pose) -> Mask:
    """The mask in each pose, (P, SIDE, SIDE)."""
    y, x = np.indices(mask.shape).reshape(2, -1)
    points = np.stack([x, y], -1) - (SIDE - 1) / 2
    return sample_mask(mask, to_subject(points[None], poses)).reshape(-1, *mask.shape)


def edge_scores(subject: CanvasObject, found: CanvasObject, poses: Pose) -> Floats:
    """F1 (P,) of the edges: an edge pixel is right if the other thing has one within TOLERANCE.

    Source: boundary F1 as in Csurka et al., "What is a good evaluation measure for semantic segmentation?", 2013.
    """
    own, theirs = edge_points(subject.edges), edge_points(found.edges)
    precise = sample_mask(subject.near, to_subject(theirs[None], poses)).mean(1)
    recalled = sample_mask(found.near, to_found(own[None], poses)).mean(1)
    return 2 * precise * recalled / np.maximum(precise + recalled, 1e-9)


def edge_points(edges: Mask) -> Floats:
    """(N, 2) x, y of the edge pixels, from the middle of the canvas."""
    y, x = np.nonzero(edges)
    return np.stack([x, y], -1) - (SIDE - 1) / 2


def to_found(points: Floats, poses: Pose) -> Floats:
    """Points (1, N, 2) of the subject's canvas on the found thing's, (P, N, 2)."""
    return points @ poses.matrix().swapaxes(1, 2) + poses.shift[:, None]


def to_subject(points: Floats, poses: Pose) -> Floats:
    """The inverse of `to_found`."""
    return (points - poses.shift[:, None]) @ np.linalg.inv(poses.matrix()).swapaxes(1, 2)


def sample_mask(mask: Mask, points: Floats) -> Mask:
    """The mask at points (P, N, 2) from its middle, to the nearest pixel; False outside. Returns (P, N)."""
    at = np.rint(points + (SIDE - 1) / 2).astype(np.int64)
    inside = ((at >= 0) & (at < SIDE)).all(-1)
    x, y = np.moveaxis(np.clip(at, 0, SIDE - 1), -1, 0)
    return mask[y, x] & inside


def best_of(values: Floats, among: Mask, count: int) -> NDArray[np.int64]:
    """The numbers of the `count` highest values, of those that are True in `among`."""
    numbers = np.flatnonzero(among)
    return numbers[np.argsort(-values[numbers], kind="stable")[:count]]
