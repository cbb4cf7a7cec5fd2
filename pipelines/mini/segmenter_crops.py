"""Training examples of the segmenter: square crops around jittered boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.random import Generator
from segment_anything.modeling import Sam
from torch import Tensor

from pipelines.mini.segmenter_start import SegmenterParams
from taming_core.objects.segmenter import box_in_crop, crop, normalize, resize, square_around
from taming_core.seeds import seed_for
from taming_core.world.artwork import Pictures
from taming_core.world.photos import box_of
from taming_core.world.plan import Plan
from taming_core.world.render import draw


@dataclass(frozen=True)
class Crops:
    """Square crops around objects, in the network's input size."""

    pixels: Float[Tensor, "n 3 size size"]  # normalized
    boxes: Float[Tensor, "n 4"]  # around the object, in pixels of the crop
    truth: Float[Tensor, "n 1 size size"]  # share of each pixel that the object covers
    any_object: Float[Tensor, "n 1 size size"]  # share that any object covers


@torch.no_grad()
def crops_of(sam: Sam, pictures: Pictures, batch: Sequence[Plan], step: int, p: SegmenterParams) -> Crops:
    """One crop per visible object of a batch of photos."""
    rng = np.random.default_rng(seed_for(p.seed, "crops", step))
    batch = [moved_together(plan, rng) if rng.random() < p.overlap_chance else plan for plan in batch]
    images, masks = draw(pictures, batch, p.sizes[step % len(p.sizes)])
    crops = [
        crop_of(sam, image, photo_masks, i, p, rng)
        for image, photo_masks in zip(normalize(sam, 255 * images), masks, strict=True)
        for i, mask in enumerate(photo_masks)
        if mask.sum() > p.min_pixels
    ]
    return Crops(*(torch.stack(column) for column in zip(*crops, strict=True)))


def crop_of(
    sam: Sam, image: Float[Tensor, "3 side side"], masks: Bool[Tensor, "objects side side"], i: int,
    p: SegmenterParams, rng: Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The fields of `Crops` for object `i` of a normalized photo."""
    box = jittered(box_of(masks[i]), p.box_jitter, rng, image.shape[-1])
    square, size = square_around(box, p.view.zoom), sam.image_encoder.img_size
    pixels, mask, any_object = resize(
        crop(torch.cat([image, masks[i : i + 1].float(), masks.any(0, keepdim=True).float()]), square), size
    ).split([3, 1, 1])
    return pixels, box_in_crop(torch.tensor(box), square, size).to(image.device), mask, any_object


def jittered(box_xyxy: Sequence[int], jitter: float, rng: Generator, side: int) -> list[float]:
    """A box with errors like a detector's: its sides move, rather outwards, by a different amount for each box."""
    x0, y0, x1, y1 = box_xyxy
    reach = jitter * rng.random() * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    outward = reach * rng.uniform(-0.8, 1, 4) * [-1, -1, 1, 1]
    return np.clip(box_xyxy + outward, 0, side).tolist()


def moved_together(plan: Plan, rng: Generator) -> Plan:
    """Two objects moved together and enlarged, so that one may occlude the other; a single object is unchanged."""
    near, larger = rng.uniform(0.25, 0.9), rng.uniform(1, 1.5)
    if len(plan.objects) == 1:
        return plan
    moved = [
        replace(t, placement=replace(t.placement, x=near * t.placement.x, scale=larger * t.placement.scale))
        for t in plan.objects
    ]
    return replace(plan, objects=tuple(moved))
