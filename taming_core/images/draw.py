"""Draw images from seeds; every image has its own generator, so that it does not depend on its batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from taming_core.bases.family import is_flow_matching
from taming_core.files import replacing
from taming_core.images.families import TamingPipeline
from taming_core.images.pipeline import StepEnd
from taming_core.images.records import Json, add_record, made_by
from taming_core.images.requests import Box, DrawSettings, ImageRequest, batch_requests
from taming_core.params.arguments import require_fitting_scheduler
from taming_core.params.sections import Sampling


def load_scheduler(name: str, like: Any) -> SchedulerMixin:
    """A diffusers scheduler by its class name, with the noise schedule of the scheduler `like`.

    Raises:
        TamingError: diffusers has no such scheduler, or it does not fit the model's noise schedule.
    """
    require_fitting_scheduler(name, type(like).__name__, like.config)
    scheduler_class: Any = getattr(diffusers, name)
    if is_flow_matching(like) and not name.startswith("FlowMatch"):
        shift = like.config.get("shift") or like.config.get("flow_shift") or 1.0
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
        return scheduler_class.from_config(like.config, **flow)
    return scheduler_class.from_config(like.config)


def draw(
    pipeline: TamingPipeline,
    requests: Sequence[ImageRequest],
    embeds: Sequence[Tensor] | Tensor,
    sampling: Sampling,
    object_scale: float = 1.0,
    size: tuple[int, int] | None = None,
    negative_prompt: str = "",
    boxes: Sequence[Box] | None = None,
    callback_on_step_end: StepEnd | None = None,
) -> Iterator[Image.Image]:
    """Draw the requested images, in order, `sampling.batch_size` at a time.

    Args:
        pipeline: keeps its scheduler; the one that `sampling` names is used in this call only.
        requests: the images; with and without an object may be mixed.
        embeds: the object embeddings (tokens, D) that `ImageRequest.objects` indexes; an object in more photos has more
            tokens.
        sampling: scheduler, steps and guidance.
        object_scale: see `TamingPipeline.__call__`.
        size: width and height in pixels; None for the model's default.
        negative_prompt: see `TamingPipeline.__call__`.
        boxes: of the objects, in every image with objects; see `TamingPipeline.__call__`.
        callback_on_step_end: see `TamingPipeline.__call__`; images of a batch that it interrupts are unfinished.
    """
    scheduler, (width, height) = pipeline.scheduler, size or (None, None)
    pipeline.scheduler = load_scheduler(sampling.scheduler, scheduler)
    try:
        for batch in batch_requests(requests, sampling.batch_size, lambda r: tuple(embeds[i].shape for i in r.objects)):
            chosen = [torch.stack([embeds[i] for i in r.objects]) for r in batch if r.objects]
            yield from pipeline(
                [r.prompt for r in batch],
                object_embeds=torch.stack(chosen) if chosen else None,
                num_inference_steps=sampling.steps,
                guidance_object=sampling.guidance_object,
                guidance_text=sampling.guidance_text,
                guidance_embedded=sampling.guidance_embedded,
                negative_prompt=negative_prompt,
                object_scale=object_scale,
                object_boxes=boxes if chosen else None,
                width=width,
                height=height,
                generator=[torch.Generator().manual_seed(r.seed) for r in batch],
                callback_on_step_end=callback_on_step_end,
                return_dict=False,
            )[0]
    finally:
        pipeline.scheduler = scheduler


def draw_missing(
    pipeline: TamingPipeline,
    requests: Sequence[ImageRequest],
    paths: Sequence[Path],
    embeds: Sequence[Tensor] | Tensor,
    sampling: Sampling,
    size: tuple[int, int] | None = None,
) -> Iterator[int]:
    """Draw the images that are missing on disk to `paths`, and yield how many exist after each batch.

    A batch is drawn again as a whole: its composition may change the last bits of an image.
    """
    done = 0
    for batch in batch_requests(requests, sampling.batch_size):
        batch_paths = paths[done : done + len(batch)]
        if not all(p.exists() for p in batch_paths):
            for path, image in zip(batch_paths, draw(pipeline, batch, embeds, sampling, size=size), strict=True):
                save(image, path)
        done += len(batch)
        yield done


def draw_recorded(
    pipeline: TamingPipeline,
    requests: Sequence[ImageRequest],
    files: Sequence[str],
    entries: Sequence[Json],
    embeds: Sequence[Tensor],
    settings: DrawSettings,
    out: Path,
    callback_on_step_end: StepEnd | None = None,
) -> Iterator[tuple[str, Image.Image]]:
    """Draw images into a folder, each with its record, and yield file name and image of each when it is written.

    Images of a batch that `callback_on_step_end` interrupts are not written, and no more are drawn.

    Args:
        pipeline: see `draw`.
        requests: the images.
        files: their names, see `records.file_names`.
        entries: their records.
        embeds: see `draw`.
        settings: of all images.
        out: the folder.
        callback_on_step_end: see `draw`.
    """
    s = settings
    drawn = draw(
        pipeline, requests, embeds, s.sampling, s.object_scale, s.size, s.negative_prompt, s.boxes, callback_on_step_end
    )
    for file, entry, image in zip(files, entries, drawn, strict=True):
        if pipeline.interrupt:
            return
        save(image, out / file, made_by(entry))
        add_record(file, entry, out)
        yield file, image


def save(image: Image.Image, path: Path, made: str | None = None) -> None:
    """Write a PNG atomically, with what it was made with as its text `taming`, if that is given."""
    info = PngInfo()
    if made is not None:
        info.add_itxt("taming", made)
    with replacing(path) as part:
        image.save(part, "PNG", pnginfo=info)
