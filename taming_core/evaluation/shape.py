"""Shape agreement of an object in an image with the subject: silhouettes and edges after the best alignment.

Judges tolerate distorted shapes, so this is measured as well (our choice). Position, size, rotation and mirroring are
free, since a prompt may change them; everything else counts. numpy and PIL only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.photos.masks import mask_box

SIDE = 64  # side in pixels of the canvas on which both objects are compared
RADIUS = 14  # pixels on it: root mean square distance of an object's pixels from their centroid
DEGREES, SCALES = np.arange(-35, 36, 7), 1.1 ** np.arange(-2, 3)
FINE_DEGREES, FINE_SCALES = np.arange(-4, 5, 2), 1.03 ** np.arange(-2, 3)
SHIFT = 8  # maximum distance of the centroids in pixels
CANDIDATES = 12  # poses with the best silhouette overlap, among which the edges decide
TOLERANCE = 1.5  # distance in pixels within which two edges match
CONTRAST = 0.35  # minimum gradient of an edge, as a share of the object's largest gradient

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class CanvasObject:
    """An object normalized to the canvas, in its own orientation."""

    mask: Mask  # (SIDE, SIDE)
    edges: Mask  # (SIDE, SIDE) outline and inner edges
    near: Mask  # (SIDE, SIDE) within TOLERANCE of an edge


@dataclass(frozen=True)
class Shape:
    """How well two shapes agree, and in which pose."""

    iou: float  # of the silhouettes, in [0, 1]
    edges: float  # F1 of the edges, in [0, 1]
    degrees: float  # clockwise rotation from the subject to the found object
    flipped: bool  # mirrored

    @property
    def agreement(self) -> float:
        """Geometric mean of both, in [0, 1]: one cannot make up for the other."""
        return float(np.sqrt(self.iou * self.edges))


class Pose(NamedTuple):
    """A map from canvas to canvas: mirror, rotate and scale about the centre, then shift; a batch of P, or one."""

    degrees: Floats
    scale: Floats
    flipped: NDArray[np.bool_]
    shift: Floats  # (P, 2) x, y in pixels

    def matrix(self) -> Floats:
        """(P, 2, 2), for column vectors x, y."""
        angle, mirror = np.deg2rad(self.degrees), np.where(self.flipped, -1.0, 1.0)
        cos, sin = self.scale * np.cos(angle), self.scale * np.sin(angle)
        return np.stack([np.stack([mirror * cos, -sin], -1), np.stack([mirror * sin, cos], -1)], -2)

    def take(self, indices: NDArray[np.int64]) -> "Pose":
        """The poses at these indices."""
        return Pose(self.degrees[indices], self.scale[indices], self.flipped[indices], self.shift[indices])


def compare(subject: CanvasObject, found: CanvasObject) -> Shape:
    """The agreement of two objects in the best pose."""
    poses, iou = fit_shifts(subject.mask, found.mask, grid(DEGREES, SCALES, [False, True]))
    chosen = np.concatenate([best_indices(iou, poses.flipped == side, CANDIDATES // 2) for side in (False, True)])
    poses, iou = poses.take(chosen), iou[chosen]
    best = poses.take(np.array([np.argmax(iou * edge_scores(subject, found, poses))]))
    near = grid(best.degrees[0] + FINE_DEGREES, best.scale[0] * FINE_SCALES, [bool(best.flipped[0])])
    poses, iou = fit_shifts(subject.mask, found.mask, near)
    edges = edge_scores(subject, found, poses)
    i = int(np.argmax(iou * edges))
    return Shape(float(iou[i]), float(edges[i]), float(poses.degrees[i]), bool(poses.flipped[i]))


def to_canvas(image: NDArray[np.uint8], mask: Mask) -> CanvasObject:
    """The object of `mask` (H, W) in `image` (H, W, 3), uint8, normalized to the canvas.

    Raises:
        ValueError: no pixel of the mask is true.
    """
    mask_box(mask)
    y, x = (positions.astype(np.float64) for positions in np.nonzero(mask))
    radius = max(float(np.sqrt(x.var() + y.var())), 1.0)
    half = round(radius * SIDE / RADIUS / 2)
    left, top = round(x.mean() + 0.5) - half, round(y.mean() + 0.5) - half
    # Alpha first: PIL resizes RGBA premultiplied, so the background does not bleed into the object.
    rgba = Image.fromarray(np.dstack([image, mask * np.uint8(255)]))
    pixels = np.asarray(
        rgba.crop((left, top, left + 2 * half, top + 2 * half)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    )
    silhouette = pixels[..., 3] > 127
    edges = outline(silhouette) | inner_edges(pixels[..., :3].astype(np.float64), silhouette)
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
    """All pixels within `radius` of the mask, cut at the border."""
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
    """Every combination of angles, scales and mirroring, without shift."""
    d, s, f = (axis.ravel() for axis in np.meshgrid(degrees, scales, list(flips), indexing="ij"))
    return Pose(d.astype(np.float64), s, f, np.zeros((len(d), 2)))


def fit_shifts(subject: Mask, found: Mask, poses: Pose) -> tuple[Pose, Floats]:
    """Each pose with the shift that maximizes the overlap of the silhouettes, and its IoU (P,)."""
    moved = warp_mask(subject, poses)
    spectrum = np.fft.rfft2(found) * np.conj(np.fft.rfft2(moved))
    shared = np.fft.irfft2(spectrum, s=found.shape).round()  # at each cyclic shift
    reach = np.r_[-SHIFT : SHIFT + 1]
    shared = shared[:, reach[:, None], reach[None, :]].reshape(len(moved), -1)
    best = shared.argmax(1)
    overlap = shared[np.arange(len(best)), best]
    union = moved.sum((1, 2)) + found.sum() - overlap
    shift = np.stack([reach[best % len(reach)], reach[best // len(reach)]], -1).astype(np.float64)
    return poses._replace(shift=shift), overlap / np.maximum(union, 1)


def warp_mask(mask: Mask, poses: Pose) -> Mask:
    """The mask in each pose, (P, SIDE, SIDE)."""
    y, x = np.indices(mask.shape).reshape(2, -1)
    points = np.stack([x, y], -1) - (SIDE - 1) / 2
    return sample_mask(mask, map_to_subject(points[None], poses)).reshape(-1, *mask.shape)


def edge_scores(subject: CanvasObject, found: CanvasObject, poses: Pose) -> Floats:
    """F1 (P,) of the edges: an edge pixel is right if the other object has one within TOLERANCE.

    Source: boundary F1 as in Csurka et al., "What is a good evaluation measure for semantic segmentation?", 2013.
    """
    subject_points, found_points = edge_points(subject.edges), edge_points(found.edges)
    precision = sample_mask(subject.near, map_to_subject(found_points[None], poses)).mean(1)
    recall = sample_mask(found.near, map_to_found(subject_points[None], poses)).mean(1)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-9)


def edge_points(edges: Mask) -> Floats:
    """(N, 2) x, y of the edge pixels, relative to the centre of the canvas."""
    y, x = np.nonzero(edges)
    return np.stack([x, y], -1) - (SIDE - 1) / 2


def map_to_found(points: Floats, poses: Pose) -> Floats:
    """Points (1, N, 2) of the subject's canvas on the found object's, (P, N, 2)."""
    return points @ poses.matrix().swapaxes(1, 2) + poses.shift[:, None]


def map_to_subject(points: Floats, poses: Pose) -> Floats:
    """The inverse of `map_to_found`."""
    return (points - poses.shift[:, None]) @ np.linalg.inv(poses.matrix()).swapaxes(1, 2)


def sample_mask(mask: Mask, points: Floats) -> Mask:
    """The mask (P, N) at points (P, N, 2) relative to its centre, at the nearest pixel; False outside."""
    pixels = np.rint(points + (SIDE - 1) / 2).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < SIDE)).all(-1)
    x, y = np.moveaxis(np.clip(pixels, 0, SIDE - 1), -1, 0)
    return mask[y, x] & inside


def best_indices(values: Floats, among: Mask, count: int) -> NDArray[np.int64]:
    """The indices of the `count` highest values among those that are True in `among`."""
    indices = np.flatnonzero(among)
    return indices[np.argsort(-values[indices], kind="stable")[:count]]
