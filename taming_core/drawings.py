"""Images on disk, drawn once: after a crash the same call draws only what is missing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from taming_core.customize import TamingPipeline
from taming_core.image_orders import Order, batched
from taming_core.images import draw
from taming_core.sections import Sampling


def draw_missing(
    pipeline: TamingPipeline,
    orders: Sequence[Order],
    paths: Sequence[Path],
    embeds: Sequence[Tensor] | Tensor,
    sampling: Sampling,
) -> Iterator[int]:
    """Draw the ordered images to their paths, and yield how many are there.

    A batch is drawn as a whole or not at all: its make-up may change an image's last bits.
    """
    done = 0
    for batch in batched(orders, sampling.batch_size):
        places = paths[done : done + len(batch)]
        if not all(p.exists() for p in places):
            for path, image in zip(places, draw(pipeline, batch, embeds, sampling), strict=True):
                save(image, path)
        done += len(batch)
        yield done


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    image.save(part, "PNG")
    part.replace(path)
