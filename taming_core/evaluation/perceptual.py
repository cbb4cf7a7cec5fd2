"""DreamSim and LPIPS, distances that were fitted to people's judgements, by the packages dreamsim and torchmetrics.

DreamSim: Fu et al., arXiv 2306.09344, 2023. LPIPS: Zhang et al., arXiv 1801.03924, 2018. Nothing is downloaded here:
weights that a package does not ship must be on disk.
"""

import contextlib
import io
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torchvision
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.evaluation.gallery import chunks
from taming_core.evaluation.judges import BATCH_SIZE, normalize_rows
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.views import Views, other_numbers
from taming_core.weights.locate import weights_folder

LPIPS_SIDE = 256  # pixels; images are resized to squares of it
BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}  # of torchvision

ImagePair = tuple[Image.Image, Image.Image]
PairDistance = Callable[[Sequence[ImagePair]], NDArray[np.float32]]


@dataclass(frozen=True)
class Lpips:
    """LPIPS of pairs of images of any sizes."""

    network: Any  # of torchmetrics

    @torch.no_grad()
    def __call__(self, pairs: Sequence[ImagePair]) -> NDArray[np.float32]:
        """The distance (N,) of each of N pairs, each of whose images is resized to LPIPS_SIDE pixels."""
        device = next(self.network.parameters()).device
        first, second = (lpips_pixels(images).to(device) for images in zip(*pairs, strict=True))
        return self.network(first, second).flatten().float().cpu().numpy()


def lpips_pixels(images: Sequence[Image.Image]) -> Float[Tensor, "n 3 side side"]:
    """Images of any sizes as LPIPS takes them, in [-1, 1]."""
    side = (LPIPS_SIDE, LPIPS_SIDE)
    small = [np.asarray(i.convert("RGB").resize(side, Image.Resampling.BICUBIC), np.float32) for i in images]
    return torch.as_tensor(np.stack(small)).permute(0, 3, 1, 2) / 127.5 - 1


def load_lpips(net: str, device: str) -> Lpips:
    """LPIPS with the backbone `net`, whose weights torchvision has downloaded before.

    Raises:
        TamingError: they are not on disk.
    """
    url = str(cast(Any, torchvision).models.get_weight(f"{BACKBONES[net]}.DEFAULT").url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        raise TamingError(f"evaluate.scores.lpips is {net}, and there is no {file}. Download {url} there, or set lpips "
                          "to null.")  # fmt: skip
    lpip: Any = import_module("torchmetrics.image.lpip")
    return Lpips(lpip.LearnedPerceptualImagePatchSimilarity(net_type=net).net.to(device))


@dataclass(frozen=True)
class DreamSim:
    """DreamSim's embedding: the distance of two images is 1 - cosine."""

    network: Any  # of dreamsim
    preprocess: Callable[[Image.Image], Tensor]
    device: str

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Features (N, E), float32 of unit length, of N images of any sizes."""
        batches = (torch.cat([self.preprocess(i) for i in chunk]) for chunk in chunks(images, BATCH_SIZE))
        return normalize_rows([self.network.embed(batch.to(self.device)) for batch in batches])


def load_dreamsim(kind: str, device: str) -> DreamSim:
    """DreamSim of a kind, whose weights its package has downloaded before.

    Raises:
        TamingError: its weights are not on disk.
    """
    folder = weights_folder() / "dreamsim"
    if not (folder / ("ensemble_lora" if kind == "ensemble" else f"{kind}_single_lora")).is_dir():
        fetch = f"from dreamsim import dreamsim; dreamsim(cache_dir='{folder}', dreamsim_type='{kind}', device='cpu')"
        raise TamingError(f"evaluate.scores.dreamsim is {kind}, and {folder} does not hold its weights. Make the "
                          f"folder and run `python -c \"{fetch}\"` where there is a network, or set dreamsim to "
                          "null.")  # fmt: skip
    package: Any = import_module("dreamsim")
    with _hub_folder_kept(), contextlib.redirect_stdout(io.StringIO()):
        network, preprocess = package.dreamsim(device=device, cache_dir=str(folder), dreamsim_type=kind)
    return DreamSim(network, preprocess, device)


@contextlib.contextmanager
def _hub_folder_kept() -> Generator[None, None, None]:
    """Restores torch's folder of weights, which dreamsim sets to its own."""
    hub: Any = torch.hub
    before = hub.get_dir()
    try:
        yield
    finally:
        hub.set_dir(before)


def add_lpips(rows: Sequence[ImageScores], views: Views, distance: PairDistance) -> list[ImageScores]:
    """The rows with the LPIPS of their images to the other photos, to the seen one, and among those of one prompt."""
    photos = {s.identity: [photo.convert("RGB") for photo in s.square_photos] for s in views.subjects}
    of_row = [_compared(row, len(photos[row["identity"]])) for row in rows]
    pairs = ((views.images[i], photos[row["identity"]][n]) for i, row in enumerate(rows) for n in of_row[i])
    counts = np.cumsum([len(numbers) for numbers in of_row])[:-1]
    distances = np.split(in_pairs(distance, pairs), counts)
    scored = [
        {**row, "lpips": float(d[1:].mean()), "lpips_seen": float(d[0])} for row, d in zip(rows, distances, strict=True)
    ]
    return add_lpips_diversity(scored, views.images, distance)


def _compared(row: ImageScores, photos: int) -> list[int]:
    """The numbers of the photos that an image is compared with: the seen one first."""
    return [0, *(other_numbers(row, photos) or [0])]


def add_lpips_diversity(
    rows: Sequence[ImageScores], images: Sequence[Image.Image], distance: PairDistance
) -> list[ImageScores]:
    """The rows with the mean distance among the images of their object, condition and prompt, where there are several.

    DIV in Ruiz et al., "DreamBooth", 2023, section 4.2.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if "prompt" in row:
            groups.setdefault((row["condition"], row["identity"], row["prompt"]), []).append(i)
    spreads: dict[int, float] = {}
    for group in groups.values():
        if len(group) > 1:
            pairs = ((images[a], images[b]) for a, b in combinations(group, 2))
            spreads |= dict.fromkeys(group, float(in_pairs(distance, pairs).mean()))
    return [{**row, "diversity_lpips": spreads[i]} if i in spreads else row for i, row in enumerate(rows)]


def in_pairs(distance: PairDistance, pairs: Iterator[ImagePair]) -> NDArray[np.float32]:
    """The distances (N,) of pairs that are made when they are needed."""
    found = [distance(chunk) for chunk in chunks(pairs, 16)]
    return np.concatenate(found) if found else np.zeros(0, np.float32)
