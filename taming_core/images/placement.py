"""Where the objects of an image go, for an encoder that lays them there (`model/collage.py`).

The caller names a box for each object, or none: then the first steps, which settle the layout, are computed from the
same noise without a collage, and the object goes where the denoiser's attention to its tokens is by then. Several
objects, and designs whose attention to the object cannot be read, get places side by side, in the order of their
`<object>`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from taming_core.images.guidance import GuidancePass, guided_prediction
from taming_core.images.requests import Box
from taming_core.model.subject_model import SubjectModel

STEPS, READ = 10, 0.85  # of the sampling that finds a place, and the share of the noise schedule where it is read
ATTENDED = ("substitute", "concat")  # designs where text and object compete for attention, so that it can be read
LARGEST = 0.8  # share of the image's shorter side that an object takes, and of its part of it beside others


def side_by_side(objects: int) -> list[Box]:
    """Boxes for several objects from left to right, or for one in the middle.

    >>> [tuple(round(x, 2) for x in box) for box in side_by_side(2)]
    [(0.05, 0.3, 0.45, 0.7), (0.55, 0.3, 0.95, 0.7)]
    """
    side = LARGEST / objects
    middles = [(i + 0.5) / objects for i in range(objects)]
    return [(x - side / 2, 0.5 - side / 2, x + side / 2, 0.5 + side / 2) for x in middles]


def find_places(
    model: SubjectModel, noise: Float[Tensor, "images channels rows columns"], passes: Sequence[GuidancePass]
) -> Float[Tensor, "images 1 4"]:
    """The box of the object of each image; the same for every scheduler and number of steps.

    Args:
        model: a UNet with a design of `ATTENDED`.
        noise: that the images are drawn from.
        passes: of the guidance.
    """
    kind: Any = DDIMScheduler
    scheduler = kind.from_config(model.schedule.config, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(STEPS, device=noise.device)
    sample, shares = noise, list[Tensor]()
    for t in scheduler.timesteps:
        read = shares if float(t) <= READ * scheduler.config["num_train_timesteps"] else None
        predicted = guided_prediction(model, sample, t, passes, shares=read)
        if read is not None:
            break
        sample = scheduler.step(predicted, t, sample, return_dict=False)[0]
    return attended_boxes(shares, (noise.shape[2], noise.shape[3])).to(noise.device)[:, None]


def attended_boxes(shares: Sequence[Float[Tensor, "images _"]], size: tuple[int, int]) -> Float[Tensor, "images 4"]:
    """The box of the largest region of each image that attends to the object.

    Args:
        shares: of each layer, the attention that each pixel gives to the object's tokens.
        size: rows and columns of the image's latents, which those of the layers divide.
    """
    rows, columns = size
    total = torch.zeros(len(shares[0]), rows, columns)
    for share in shares:
        step = round((rows * columns / share.shape[1]) ** 0.5)
        layer = (share / share.mean(1, keepdim=True)).float().cpu().view(-1, 1, rows // step, columns // step)
        total += F.interpolate(layer, size, mode="bilinear")[:, 0]
    return torch.tensor([largest_region(image.numpy()) for image in total])


def largest_region(attention: NDArray[np.float32]) -> Box:
    """The box of the largest 8-connected region (rows, columns) above the middle between low and high attention.

    >>> map_ = np.zeros((4, 8), np.float32); map_[1:3, 2:6] = 1.0; map_[3, 7] = 1.0
    >>> largest_region(map_)
    (0.25, 0.25, 0.75, 0.75)
    """
    import cv2

    untyped: Any = cv2
    low, high = np.percentile(attention, [5, 95])
    _, _, stats, _ = untyped.connectedComponentsWithStats((attention > (low + high) / 2).astype(np.uint8))
    rows, columns = attention.shape
    regions: list[list[int]] = stats.tolist()[1:] or [[0, 0, columns, rows, 0]]  # without the background
    x, y, width, height, _ = max(regions, key=lambda region: region[4])
    return x / columns, y / rows, (x + width) / columns, (y + height) / rows
