"""Seeds to images: every image has its own generator, so that its batch cannot change it."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from torch import Tensor

from taming_core.bases.family import is_flow_matching
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest, batch_requests
from taming_core.params.arguments import require_scheduler
from taming_core.params.sections import Sampling


def load_scheduler(name: str, like: Any) -> SchedulerMixin:
    """Any diffusers scheduler by its class name, with the noise schedule of the model's own.

    Raises:
        TamingError: diffusers has no such scheduler, or it is not for models trained as this one was.
    """
    require_scheduler(name)
    found: Any = getattr(diffusers, name)
    known = inspect.signature(found).parameters
    flows = name.startswith("FlowMatch")
    if is_flow_matching(like) and not flows and "use_flow_sigmas" not in known:
        raise TamingError(f"{name} does not draw with a model of flow matching. Name "
                          "FlowMatchEulerDiscreteScheduler or DPMSolverMultistepScheduler.")  # fmt: skip
    if is_flow_matching(like) and like.config.get("use_dynamic_shifting") and "use_dynamic_shifting" not in known:  # pyright: ignore
        raise TamingError(f"{name} cannot shift its steps with the image's size, as this model wants it. Name "
                          "FlowMatchEulerDiscreteScheduler or DPMSolverMultistepScheduler.")  # fmt: skip
    if is_flow_matching(like) and not flows:
        shift = like.config.get("shift") or like.config.get("flow_shift") or 1.0  # pyright: ignore
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
        return found.from_config(like.config, **flow)
    if flows and not is_flow_matching(like):
        raise TamingError(f"{name} draws with models of flow matching, and this is none. Name another, such as "
                          "DDIMScheduler.")  # fmt: skip
    return found.from_config(like.config)


def draw(
    pipeline: TamingPipeline,
    requests: Sequence[ImageRequest],
    embeds: Sequence[Tensor] | Tensor,
    sampling: Sampling,
    object_scale: float = 1.0,
    size: tuple[int, int] | None = None,
) -> Iterator[Image.Image]:
    """The ordered images, in order, `sampling.batch_size` at a time.

    Args:
        pipeline: keeps its own scheduler; the one that `sampling` names is used in this call only.
        orders: what is wanted; with and without object may be mixed.
        embeds: what `Order.objects` counts in, (tokens, D) each; an object seen in more photos has more tokens.
        sampling: scheduler, steps and guidance.
        object_scale: as the pipeline takes it.
        size: width and height in pixels; the model's own where None.
    """
    own, (width, height) = pipeline.scheduler, size or (None, None)
    pipeline.scheduler = load_scheduler(sampling.scheduler, own)
    try:
        for batch in batch_requests(requests, sampling.batch_size, lambda o: tuple(embeds[i].shape for i in o.objects)):
            chosen = [torch.stack([embeds[i] for i in o.objects]) for o in batch if o.objects]
            yield from pipeline(
                [o.prompt for o in batch],
                object_embeds=torch.stack(chosen) if chosen else None,
                num_inference_steps=sampling.steps,
                guidance_object=sampling.guidance_object,
                guidance_text=sampling.guidance_text,
                guidance_embedded=sampling.guidance_embedded,
                object_scale=object_scale,
                width=width,
                height=height,
                generator=[torch.Generator().manual_seed(o.seed) for o in batch],
                return_dict=False,
            )[0]
    finally:
        pipeline.scheduler = own


def draw_missing(
    pipeline: TamingPipeline,
    requests: Sequence[ImageRequest],
    paths: Sequence[Path],
    embeds: Sequence[Tensor] | Tensor,
    sampling: Sampling,
) -> Iterator[int]:
    """Draw the ordered images to their paths, and yield how many are there.

    A batch is drawn as a whole or not at all: its make-up may change an image's last bits.
    """
    done = 0
    for batch in batch_requests(requests, sampling.batch_size):
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
