"""Drawing the images of an evaluation: a rerun trains and draws only what is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from taming_core.baselines.apply import applied
from taming_core.baselines.memory import MemoryPeak
from taming_core.baselines.methods import Method
from taming_core.baselines.photos import photos_digest
from taming_core.baselines.record import BaselineRecord, base_digest, fingerprint_of, read_record
from taming_core.baselines.train import checkpoint_name, require_supported, train
from taming_core.evaluation.added_conditions import added_images, condition_of, trained
from taming_core.evaluation.conditions import CLASS_NOUN, OURS, PASTED, name_of, variant, with_guidance
from taming_core.evaluation.protocol import EvalImage, EvalSubject, file_names, plan_images
from taming_core.evaluation.result import Cost
from taming_core.files import safe_name
from taming_core.images.draw import draw_missing, save
from taming_core.images.families import TamingPipeline
from taming_core.locks import exclusive
from taming_core.params.baseline import BaselineParams
from taming_core.params.sections import EvaluateParams, Sampling
from taming_core.progress import track_to
from taming_core.tables.shards import RUNS

Images = Sequence[tuple[EvalImage, Path]]  # each with the file that it is drawn to


class Drawn(NamedTuple):
    """The images of an evaluation, on disk."""

    images: list[EvalImage]
    paths: list[Path]  # of the images, in the same order
    timings: dict[str, float]  # see `timings`
    costs: dict[str, Cost]  # by condition


def draw(
    pipeline: TamingPipeline, subjects: Sequence[EvalSubject], p: EvaluateParams, b: BaselineParams, folder: Path
) -> Drawn:
    """Draw every image of the protocol into `folder`; images that are there from an interrupted run are kept.

    Args:
        pipeline: the encoder; baselines are trained on its base, and leave it as it was.
        subjects: the evaluated subjects.
        p: the params.
        b: of the baselines; they are kept below runs/, for other evaluations of the same base.
        folder: of the images.

    Raises:
        TamingError: prompts or a baseline need a class, and a subject has none; or the base does not support one.
    """
    planned = plan_images(subjects, p, pipeline.object_encoder.captions)
    ours = [image for image in planned if image.condition == OURS]
    images = [*planned, *added_images(ours, subjects, p, b)]
    if trained(p):
        require_supported(pipeline, b)
    files = list(zip(images, (folder / name for name in file_names(images, subjects)), strict=True))
    embeds, encoding = encode_subjects(pipeline, [s.encoder_image for s in subjects])
    missing, start = sum(not path.exists() for _, path in files[: len(planned)]), perf_counter()
    draw_images(pipeline, files[: len(planned)], embeds, p.sampling, "draw")
    seconds = (perf_counter() - start) / missing if missing else None
    # Every condition has batches of its own: an image does not depend on what else is evaluated, to the last bit.
    for scale in p.guidance:
        at_scale, condition = p.sampling.model_copy(update={"guidance_object": scale}), with_guidance(scale)
        draw_images(pipeline, of_condition(files, condition), embeds, at_scale, name_of(condition))
    draw_images(pipeline, of_condition(files, CLASS_NOUN), (), p.sampling, name_of(CLASS_NOUN))
    paste(of_condition(files, PASTED), subjects)
    costs = {OURS: Cost(encoding, embeds[0].nbytes, peak_bytes(pipeline, subjects[0].encoder_image))}
    for method in trained(p):
        costs |= draw_baseline(method, pipeline, subjects, files, p.sampling, b)
    return Drawn(images, [path for _, path in files], timings(costs, seconds), costs)


def of_condition(files: Images, condition: str) -> Images:
    """The images of one condition."""
    return [(image, path) for image, path in files if image.condition == condition]


def draw_images(
    pipeline: TamingPipeline, files: Images, embeds: Sequence[Tensor] | Tensor, sampling: Sampling, title: str
) -> None:
    """Draw the images that are missing, under a progress bar."""
    requests, paths = [image.request for image, _ in files], [path for _, path in files]
    track_to(draw_missing(pipeline, requests, paths, embeds, sampling), title, len(files))


def paste(files: Images, subjects: Sequence[EvalSubject]) -> None:
    """Write the photo that the encoder sees to each file."""
    for image, path in files:
        save(subjects[image.subject].training_photos[0], path)


def draw_baseline(
    method: Method, pipeline: TamingPipeline, subjects: Sequence[EvalSubject], files: Images, sampling: Sampling,
    b: BaselineParams,
) -> dict[str, Cost]:  # fmt: skip
    """Train a baseline on each subject, draw the images with it, and return the cost of each of its conditions."""
    base, own = base_digest(pipeline), condition_of(method)
    records: dict[str, list[BaselineRecord]] = {}
    for i, subject in enumerate(subjects):
        folder = folder_of(method, subject, base, b)
        of_subject = [(image, path) for image, path in files if image.subject == i]
        with exclusive(folder):
            train(method, pipeline, subject.training_photos, subject.class_name, b, folder, standalone=False)
            for condition in dict.fromkeys(w.condition for w, _ in of_subject if variant(w.condition).of == own):
                steps = variant(condition).steps
                weights = folder if steps is None else folder / checkpoint_name(steps)
                title = f"{name_of(condition)}, {subject.identity}"
                draw_tuned(pipeline, weights, of_condition(of_subject, condition), sampling, title)
                records.setdefault(condition, []).append(read_record(weights))
    return {condition: median_cost(found) for condition, found in records.items()}


def folder_of(method: Method, subject: EvalSubject, base: str, b: BaselineParams) -> Path:
    """Where the weights of a baseline for a subject are kept."""
    fingerprint = fingerprint_of(method, subject.class_name, base, photos_digest(subject.training_photos), b)
    return RUNS / f"baseline-{fingerprint}" / safe_name(subject.identity)


def draw_tuned(pipeline: TamingPipeline, weights: Path, files: Images, sampling: Sampling, title: str) -> None:
    """Draw the images that are missing with a baseline's weights, and its words in place of `<object>`."""
    if all(path.exists() for _, path in files):
        return
    with applied(pipeline, weights) as words:
        draw_images(pipeline, [(in_words(image, words), path) for image, path in files], (), sampling, title)


def in_words(image: EvalImage, words: Callable[[str], str]) -> EvalImage:
    """The image without object tokens, its prompt in a baseline's words."""
    return replace(image, request=replace(image.request, prompt=words(image.request.prompt), objects=()))


def median_cost(records: Sequence[BaselineRecord]) -> Cost:
    """The medians over objects, without images that are drawn once for a class."""
    size, peak = (int(median(getattr(r, name) for r in records)) for name in ("bytes", "peak_bytes"))
    return Cost(median(r.seconds for r in records), size, peak)


def encode_subjects(pipeline: TamingPipeline, subjects: Sequence[Image.Image]) -> tuple[Tensor, float]:
    """The object embeddings (objects, K, D) on the CPU, one encoder pass each, and the median seconds of a pass."""
    embeds: list[Tensor] = []
    seconds: list[float] = []
    for subject in subjects:
        start = perf_counter()
        embeds.append(pipeline.encode_objects([subject]).cpu())  # waits for the device, so that the timing is right
        seconds.append(perf_counter() - start)
    return torch.cat(embeds), median(seconds)


def peak_bytes(pipeline: TamingPipeline, subject: Image.Image) -> int:
    """The most memory of an encoder pass above what was used before, looked at after every layer."""
    memory = MemoryPeak(pipeline.device)
    hook = register_module_forward_hook(lambda *_: memory.sample())
    try:
        pipeline.encode_objects([subject])
    finally:
        hook.remove()
    memory.sample()
    return memory.above


def timings(costs: Mapping[str, Cost], seconds_per_image: float | None) -> dict[str, float]:
    """What is written to timings.json: the cost of a new object by condition, the encoder's without a prefix.

    >>> timings({"ours": Cost(0.25, 1024, 4096), "dreambooth": Cost(60.0, 9, 9)}, None)["dreambooth_seconds_per_object"]
    60.0
    """
    found: dict[str, float] = {}
    for condition, cost in costs.items():
        prefix = "" if condition == OURS else f"{condition}_"
        found |= {f"{prefix}seconds_per_object": round(cost.seconds, 4), f"{prefix}bytes_per_object": cost.bytes}
        found |= {} if cost.peak_bytes is None else {f"{prefix}peak_bytes_per_object": cost.peak_bytes}
    return found if seconds_per_image is None else {**found, "seconds_per_image": round(seconds_per_image, 3)}
