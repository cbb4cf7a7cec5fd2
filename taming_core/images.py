"""Seeds to images: every image has its own generator, so that its batch cannot change it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from torch import Tensor

from taming_core.config import Sampling
from taming_core.customize import TamingPipeline
from taming_core.errors import TamingError


@dataclass(frozen=True)
class Order:
    """One image that is wanted."""

    prompt: str
    object: int | None  # which of the embeddings; None for plain text-to-image
    seed: int


def scheduler_named(name: str, like: SchedulerMixin) -> SchedulerMixin:
    """Any diffusers scheduler by its class name, with the noise schedule of the model's own.

    Raises:
        TamingError: diffusers has no such scheduler.
    """
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise TamingError(f"diffusers has no scheduler '{name}'. Name one of its classes, such as DDIMScheduler.")
    return found.from_config(like.config)  # pyright: ignore[reportAttributeAccessIssue]


def draw(
    pipeline: TamingPipeline, orders: Sequence[Order], embeds: Tensor | None, sampling: Sampling
) -> Iterator[Image.Image]:
    """The ordered images, in order, `sampling.batch_size` at a time.

    Args:
        pipeline: keeps its own scheduler; the one that `sampling` names is used in this call only.
        orders: what is wanted; with and without object may be mixed.
        embeds: (objects, K, D), what `Order.object` counts in.
        sampling: scheduler, steps and guidance.
    """
    own = pipeline.scheduler
    pipeline.scheduler = scheduler_named(sampling.scheduler, own)
    try:
        for batch in batched(orders, sampling.batch_size):
            chosen = None if embeds is None or batch[0].object is None else embeds[[o.object for o in batch]]
            yield from pipeline(
                [o.prompt for o in batch],
                object_embeds=chosen,
                num_inference_steps=sampling.steps,
                guidance_object=sampling.guidance_object,
                guidance_text=sampling.guidance_text,
                generator=[torch.Generator().manual_seed(o.seed) for o in batch],
                return_dict=False,
            )[0]
    finally:
        pipeline.scheduler = own


def batched(orders: Sequence[Order], size: int) -> Iterator[list[Order]]:
    """Runs of orders that agree on whether there is an object, at most `size` long."""
    run: list[Order] = []
    for order in orders:
        if run and (len(run) == size or (run[0].object is None) != (order.object is None)):
            yield run
            run = []
        run.append(order)
    if run:
        yield run
