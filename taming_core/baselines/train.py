"""Tune a text-to-image model to one object by a method, and write what stock diffusers loads."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from taming_core.baselines import dreambooth, dreambooth_lora, textual_inversion
from taming_core.baselines.memory import MemoryPeak
from taming_core.baselines.methods import TEMPLATES, Method, class_noun, object_words
from taming_core.baselines.photos import photos_digest
from taming_core.baselines.record import (
    BaselineRecord,
    base_digest,
    fingerprint_of,
    finished,
    read_record,
)
from taming_core.baselines.tuned import Tuned, frozen
from taming_core.baselines.views import Posteriors, class_images, encode, open_images, views_of
from taming_core.bases.family import Text
from taming_core.bases.limits import require_image_size
from taming_core.errors import TamingError
from taming_core.files import replacing_folder
from taming_core.images.families import TamingPipeline
from taming_core.language.placeholder import article
from taming_core.model import diffusion
from taming_core.model.subject_model import SubjectModel, sample_latents, subject_model
from taming_core.params.baseline import BaselineParams, MethodParams
from taming_core.progress import track
from taming_core.training.losses import denoising_loss
from taming_core.training.sampler import shuffled_index
from taming_core.weights.device import fast_kernels

TextOf = Callable[[Sequence[str]], Text]
TUNED = {
    "textual-inversion": textual_inversion.tuned,
    "dreambooth": dreambooth.tuned,
    "dreambooth-lora": dreambooth_lora.tuned,
}


@dataclass(frozen=True)
class ClassImages:
    """The images of prior preservation."""

    posteriors: Posteriors
    prompt: str
    weight: float  # of their loss


class Examples(NamedTuple):
    """The images of one step, and what is said of them."""

    posteriors: Posteriors
    prompts: list[str]
    weights: Float[Tensor, " images"]  # in the loss; they add up to 1 over the photos


def train(
    method: Method,
    pipeline: TamingPipeline,
    photos: Sequence[Image.Image],
    noun: str | None,
    p: BaselineParams,
    out: Path,
    standalone: bool = True,
) -> BaselineRecord:
    """Tune the pipeline's text-to-image model to the object of the photos, and write the result to `out`.

    A result that is there with the same fingerprint is not trained again. The pipeline is the same afterwards, to the
    bit; its object encoder is not used.

    Args:
        method: one of `METHODS`.
        pipeline: on the device to train on, in fp32 or bf16.
        photos: RGB, of any sizes.
        noun: the class of the object; None if it is not known.
        p: the params.
        out: the folder; it is replaced as a whole when the training has ended.
        standalone: whether the folder of DreamBooth also has the components that were not trained, so that
            `from_pretrained` loads it.

    Raises:
        TamingError: the base does not support the params or the precision, or the loss is not finite.
    """
    require_supported(pipeline, p)
    base, digest = base_digest(pipeline), photos_digest(photos)
    fingerprint = fingerprint_of(method, noun, base, digest, p)
    if (done := finished(out, fingerprint)) is not None:
        return done
    own, side, words = p.of(method), p.size or pipeline.family.image_size, object_words(method, noun, p)
    prior, prior_seconds = None, 0.0
    if method != "textual-inversion" and p.prior is not None:
        prompt = prompt_of(class_noun(noun))
        paths, prior_seconds = class_images(pipeline, prompt, base, side, p, p.prior)
        prior = ClassImages(encode(pipeline, open_images(paths)), prompt, p.prior.weight)
    memory, seconds, start = MemoryPeak(pipeline.device), 0.0, perf_counter()
    with replacing_folder(out) as part, frozen(pipeline, p.gradient_checkpointing):
        images = encode(pipeline, views_of(photos, side, p.augment, p.seed))
        with TUNED[method](pipeline, noun, p) as tuned:
            example_at = partial(examples, method, images, words, prior, own.batch_size, p.seed)
            for step in track(updates(tuned, pipeline, example_at, memory, own, p), f"{method}, {out.name}", own.steps):
                if step not in (*own.checkpoints, own.steps):
                    continue
                seconds += perf_counter() - start
                folder = part if step == own.steps else part / checkpoint_name(step)
                folder.mkdir(exist_ok=True)
                size = tuned.save(folder, standalone and step == own.steps)
                record = BaselineRecord(
                    method, noun, words, tuned.networks, fingerprint, base, digest, step, round(seconds, 3),
                    round(prior_seconds, 3), memory.above, size,
                )  # fmt: skip
                record.write(folder)
                start = perf_counter()
    return read_record(out)


def checkpoint_name(step: int) -> str:
    """The folder, in that of the result, of the weights after a step.

    >>> checkpoint_name(50)
    'step-000050'
    """
    return f"step-{step:06d}"


def require_supported(pipeline: TamingPipeline, p: BaselineParams) -> None:
    """Require a base and a precision that can be trained with these params.

    Raises:
        TamingError: they cannot; the message names the key.
    """
    family = pipeline.family
    if torch.float16 in {network.dtype for network in (family.denoiser, *family.text_encoders.values())}:
        raise TamingError("Baselines cannot be trained in fp16, whose range is too small for gradients. Use "
                          "--precision bf16 or fp32.")  # fmt: skip
    if family.reads_guidance and p.guidance is None:
        raise TamingError("The base is guidance-distilled: it reads the guidance scale that images are drawn with. Set "
                          "baseline.guidance to it, such as 3.5.")  # fmt: skip
    if not family.reads_guidance and p.guidance is not None:
        raise TamingError("baseline.guidance has no effect on this base, which is not guidance-distilled. Set it to "
                          "null.")  # fmt: skip
    side = p.size or family.image_size
    require_image_size(side, side, family.size_multiple, family.max_size)


def prompt_of(words: str) -> str:
    """The prompt of DreamBooth's photos and class images.

    >>> prompt_of("sks robot"), prompt_of("animal")
    ('a photo of a sks robot', 'a photo of an animal')
    """
    return f"a photo of {article(words)} {words}"


def examples(
    method: Method, images: Posteriors, words: str, prior: ClassImages | None, count: int, seed: int, step: int
) -> Examples:
    """`count` views of the photos, and as many class images, in shuffled epochs."""
    places = range(step * count, (step + 1) * count)
    chosen = [shuffled_index(len(images.mean), seed, "photos", n) for n in places]
    prompts = [prompt_at(method, words, seed, n) for n in places]
    found = Examples(images.take(chosen), prompts, torch.full((count,), 1 / count))
    if prior is None:
        return found
    others = [shuffled_index(len(prior.posteriors.mean), seed, "class images", n) for n in places]
    return Examples(
        Posteriors(*map(torch.cat, zip(found.posteriors, prior.posteriors.take(others), strict=True))),
        prompts + [prior.prompt] * count,
        torch.cat([found.weights, prior.weight * found.weights]),
    )


def prompt_at(method: Method, words: str, seed: int, place: int) -> str:
    """The prompt of a photo: for Textual Inversion one of the templates in turn."""
    if method != "textual-inversion":
        return prompt_of(words)
    return TEMPLATES[shuffled_index(len(TEMPLATES), seed, "templates", place)].format(words)


def updates(
    tuned: Tuned,
    pipeline: TamingPipeline,
    example_at: Callable[[int], Examples],
    memory: MemoryPeak,
    own: MethodParams,
    p: BaselineParams,
) -> Iterator[int]:
    """Train, and yield the number of completed steps after each.

    Raises:
        TamingError: the loss is not finite.
    """
    model, device, dtype = subject_model(pipeline.components), pipeline.device, pipeline.denoiser.dtype
    fused = device.type in ("cpu", "cuda")
    optimizer: Any = torch.optim.AdamW(tuned.weights, lr=own.learning_rate, weight_decay=p.weight_decay, fused=fused)
    text_of = trained_text(model) if tuned.trains_text else frozen_text(model)
    for step in range(own.steps):
        batch = example_at(step)
        count, channels, rows, columns = batch.posteriors.mean.shape
        noise = diffusion.noise_at(step, (count, channels, rows, columns), model.schedule, p.seed, 0.0, p.guidance)
        with precision(device, dtype), fast_kernels("fp32" if dtype == torch.float32 else "bf16"):
            loss: Any = weighted_loss(model, batch, diffusion.slice_noise(noise, slice(None), device), text_of, dtype)
            memory.sample()
        if not math.isfinite(loss.item()):
            raise TamingError(f"The loss is {loss.item()} in step {step + 1}. Lower the method's learning_rate in the "
                              "section baseline of params.yaml.")  # fmt: skip
        loss.backward()
        clip_grad_norm_(tuned.weights, p.max_grad_norm)
        optimizer.step()
        memory.sample()
        optimizer.zero_grad(set_to_none=True)
        yield step + 1


def weighted_loss(
    model: SubjectModel, batch: Examples, noise: diffusion.Noise, text_of: TextOf, dtype: torch.dtype
) -> Float[Tensor, ""]:
    """The denoising loss of a batch, without weights of timesteps or places."""
    device = noise.diffusion.device
    mean, std = (x.to(device) for x in batch.posteriors)
    latents = sample_latents(model, mean, std, noise.posterior)
    noised = diffusion.add_noise(model.schedule, latents, noise).to(dtype)
    text = text_of(batch.prompts).map(lambda x: x.to(dtype))
    predicted = model.family.predict(noised, noise.timesteps, text, noise.guidance)
    target = diffusion.training_target(model.schedule, latents, noise)
    errors = denoising_loss(predicted, target, latents.new_ones(len(latents), 1, *latents.shape[2:]))
    return (errors * batch.weights.to(device)).sum()


def trained_text(model: SubjectModel) -> TextOf:
    """The prompt embeddings, with gradients."""
    return lambda prompts: model.family.text(model.family.token_ids(prompts).to(model.family.denoiser.device))


def frozen_text(model: SubjectModel) -> TextOf:
    """The prompt embeddings, each computed once."""

    @cache
    @torch.no_grad()
    def text_of(prompt: str) -> Text:
        return trained_text(model)([prompt])

    def texts_of(prompts: Sequence[str]) -> Text:
        found = [text_of(prompt) for prompt in prompts]
        pooled = [text.pooled for text in found if text.pooled is not None]
        return Text(torch.cat([text.states for text in found]), torch.cat(pooled) if pooled else None)

    return texts_of


def precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Mixed precision for weights of this type; of float32 nothing changes."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
