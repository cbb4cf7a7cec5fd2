"""The images of a training: views of the photos, and class images; their latents are encoded once."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from taming_core.fingerprints import fingerprint
from taming_core.images.draw import draw_missing
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest
from taming_core.locks import exclusive
from taming_core.params.baseline import AugmentParams, BaselineParams, PriorParams
from taming_core.progress import track_to
from taming_core.seeds import seed_for
from taming_core.tables.shards import RUNS

RESAMPLING = Image.Resampling.LANCZOS


class Posteriors(NamedTuple):
    """Mean and standard deviation of the autoencoder's posterior of each image, on the CPU."""

    mean: Float[Tensor, "images channels rows columns"]
    std: Float[Tensor, "images channels rows columns"]

    def take(self, numbers: Sequence[int]) -> "Posteriors":
        """Those of some images."""
        return Posteriors(self.mean[list(numbers)], self.std[list(numbers)])


def views_of(photos: Sequence[Image.Image], side: int, p: AugmentParams, seed: int) -> list[Image.Image]:
    """Square views of every photo, `side` pixels wide: its centre, and crops of it at random places."""
    return [view(photo, side, p, np.random.default_rng(seed_for(seed, f"view {i}", n)), n)
            for i, photo in enumerate(photos) for n in range(p.views)]  # fmt: skip


def view(photo: Image.Image, side: int, p: AugmentParams, rng: np.random.Generator, number: int) -> Image.Image:
    """One view of a photo; the first is its central square."""
    shorter = min(photo.size)
    square = ImageOps.fit(photo.convert("RGB"), (shorter, shorter), RESAMPLING)
    if number == 0:
        return square.resize((side, side), RESAMPLING)
    length = square.width * (1 - p.crop * rng.random())
    left, top = (rng.random() * (square.width - length) for _ in range(2))
    cropped = square.resize((side, side), RESAMPLING, box=(left, top, left + length, top + length))
    return ImageOps.mirror(cropped) if p.flip and number % 2 else cropped


def class_images(
    pipeline: TamingPipeline, prompt: str, base: str, side: int, p: BaselineParams, prior: PriorParams
) -> tuple[list[Path], float]:
    """Images that the model draws of a class, on disk, and the seconds that drawing the missing ones took.

    They stay below `runs/` for other objects of the class; `base` is the digest of the model's weights.
    """
    # Neither the weight of their loss nor the batch size makes other images.
    inputs = prompt, base, str(side), str(p.seed), str(pipeline.denoiser.dtype)
    folder = RUNS / f"class-images-{fingerprint(prior, *inputs, without=frozenset({'weight', 'images'}))}"
    paths = [folder / f"{n:06d}.png" for n in range(prior.images)]
    requests = [ImageRequest(prompt, (), seed_for(p.seed, "class image", n)) for n in range(prior.images)]
    start, missing = perf_counter(), not all(path.exists() for path in paths)
    if missing:
        with exclusive(folder):
            drawn = draw_missing(pipeline, requests, paths, (), prior.sampling, (side, side))
            track_to(drawn, "class images", prior.images)
    return paths, perf_counter() - start if missing else 0.0


def open_images(paths: Iterable[Path]) -> Iterator[Image.Image]:
    """The images in files."""
    for path in paths:
        with Image.open(path) as image:
            yield image.convert("RGB")


@torch.no_grad()
def encode(pipeline: TamingPipeline, images: Iterable[Image.Image]) -> Posteriors:
    """The posteriors of RGB images of one size, encoded one by one, so that none depends on the others."""
    family, device = pipeline.family, pipeline.device
    found = [family.encode(image_pixels(image)[None].to(device)) for image in images]
    return Posteriors(*(torch.cat([getattr(f, name).float().cpu() for f in found]) for name in ("mean", "std")))


def image_pixels(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """An RGB image in [-1, 1]."""
    return torch.as_tensor(np.asarray(image, np.float32)).permute(2, 0, 1) / 127.5 - 1
