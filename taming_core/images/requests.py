"""Requested images: prompt, objects and seed of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from taming_core.params.sections import Sampling

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of the image's width and height


@dataclass(frozen=True)
class ImageRequest:
    """One image to draw."""

    prompt: str
    objects: tuple[int, ...]  # indices of object embeddings; several for several objects, none for plain text-to-image
    seed: int


@dataclass(frozen=True)
class DrawSettings:
    """What all images of a call have in common."""

    sampling: Sampling
    negative_prompt: str = ""  # takes the place of the empty prompt in guidance
    object_scale: float = 1.0  # see `TamingPipeline.__call__`
    size: tuple[int, int] | None = None  # width and height in pixels; None for the model's own
    boxes: tuple[Box, ...] | None = None  # where the objects go; see `TamingPipeline.__call__`


def batch_requests(
    requests: Sequence[ImageRequest], size: int, shape: Callable[[ImageRequest], object] = lambda r: len(r.objects)
) -> Iterator[list[ImageRequest]]:
    """Batches of at most `size` consecutive requests of equal `shape`: the same number of objects (and tokens)."""
    batch: list[ImageRequest] = []
    for request in requests:
        if batch and (len(batch) == size or shape(batch[0]) != shape(request)):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch
