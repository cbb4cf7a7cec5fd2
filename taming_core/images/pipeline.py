"""The base of every TamingPipeline: an object and a prompt to images (docs/explanation/method.md section 6)."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils.torch_utils import randn_tensor  # pyright: ignore[reportUnknownVariableType]  # its shape is untyped
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from taming_core.bases.families import family_class, family_of
from taming_core.bases.family import Family, Text, pool_at_eos
from taming_core.bases.limits import require_image_size
from taming_core.bases.load import dtype_of
from taming_core.bases.record import BaseRecord, base_parts, record_of
from taming_core.errors import TamingError
from taming_core.images.checks import (
    negative_prompts,
    require_base_effect,
    require_boxes,
    require_embedded_guidance,
    require_guided,
    require_object_scale,
    require_read,
)
from taming_core.images.guidance import EncodedPrompts, guidance_passes, guided_prediction
from taming_core.images.placement import ATTENDED, find_places, side_by_side
from taming_core.images.prompts import shorten
from taming_core.images.requests import Box
from taming_core.language.placeholder import OBJECT
from taming_core.model import lora
from taming_core.model.attention import cross_attentions, eject, inject, set_object_scale
from taming_core.model.collage import inject_collage
from taming_core.model.conditioning import find_placeholders, placeholder_states
from taming_core.model.inputs import EncoderInputs, subject_pixels
from taming_core.model.object_encoder import ObjectEncoder, encode_subjects
from taming_core.model.subject_model import subject_model

logger = logging.getLogger(__name__)
StepEnd = Callable[[DiffusionPipeline, int, int, dict[str, Tensor]], dict[str, Tensor]]
SubjectPhotos = Image.Image | Sequence[Image.Image]  # one subject, in one or several photos
DEFAULT_EMBEDDED_GUIDANCE = 3.5  # diffusers' default for FLUX.1-dev


class TamingPipeline(DiffusionPipeline):
    """A text-to-image pipeline conditioned on an object as well as the text; load it with `from_pretrained(folder)`.

    Each family of base models has a subclass in `images.families`, which names its components.
    """

    family_type: ClassVar[type[Family]]  # the family of its base model
    base: BaseRecord | None = None  # the model that it has components from, if they are not from its own folder

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->unet->transformer->vae"
    # The denoiser runs its injected layers, which must be on the same device.
    _exclude_from_cpu_offload = ["object_encoder"]  # noqa: RUF012  (diffusers declares it so)
    _optional_components = ["text_encoder_3", "tokenizer_3"]  # noqa: RUF012
    _callback_tensor_inputs = ("latents",)

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        untyped: Any = self
        untyped.register_modules(**parts)
        family = self.family
        for text_encoder, tokenizer in zip(family.text_encoders.values(), family.tokenizers, strict=True):
            pool_at_eos(text_encoder, tokenizer)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.family.vae_scale_factor)
        self.interrupt = False
        self._inject()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, base: str | None = None, **options: Any
    ) -> "TamingPipeline":
        """The pipeline of a folder or a hub name, with the options of diffusers' `from_pretrained`.

        Args:
            pretrained_model_name_or_path: an encoder folder, an export, or their hub name.
            base: where the base model is of a folder that holds only what was trained; None for where its record says.
            options: of diffusers.

        Raises:
            TamingError: the base is missing, or has other weights; or `base` has no effect.
        """
        names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
        from_hub = {name: options[name] for name in names if name in options}
        index: Any = cls.load_config(pretrained_model_name_or_path, **from_hub)
        kind, record = cls.class_for(index), record_of(index)
        # Without a dtype transformers would keep the stored fp16, and diffusers convert to fp32.
        dtype = options["dtype"] = options.pop("dtype", None) or options.pop("torch_dtype", None) or torch.float32
        if base is not None:
            require_base_effect(pretrained_model_name_or_path, record)
        if record is not None:
            pretrained_model_name_or_path = _local_folder(str(pretrained_model_name_or_path), from_hub)
            options = {**base_parts(pretrained_model_name_or_path, record, base, dtype), **options}
        if "object_encoder" not in {*index, *options}:  # an export that stock diffusers can load too (`taming export`)
            encoder_class: Any = ObjectEncoder
            options["object_encoder"] = encoder_class.from_pretrained(
                pretrained_model_name_or_path, subfolder="object_encoder",
                **from_hub, dtype=dtype_of("object_encoder", dtype),
            )  # fmt: skip
        parent: Any = super(TamingPipeline, kind)
        pipeline = parent.from_pretrained(pretrained_model_name_or_path, **options)
        pipeline.base = record
        if record is not None:
            lora.fuse_file(pipeline, pretrained_model_name_or_path)
        return pipeline

    @classmethod
    def load_config(cls, *args: Any, **options: Any) -> Any:
        """The content of model_index.json; folders from before 0.1.0 have the old import path of the object encoder."""
        parent: Any = super()
        loaded: tuple[dict[str, Any], ...] | dict[str, Any] = parent.load_config(*args, **options)
        index = loaded[0] if isinstance(loaded, tuple) else loaded
        if "object_encoder" in index:
            index["object_encoder"] = ["taming_core", "ObjectEncoder"]
        return loaded

    @classmethod
    def class_for(cls, parts: Mapping[str, Any]) -> type["TamingPipeline"]:
        """The pipeline class for these components, or for the entries of a model_index.json.

        Raises:
            TamingError: no family has these components.
        """
        family = family_class(parts)
        return next(kind for kind in TamingPipeline.__subclasses__() if kind.family_type is family)

    @property
    def family(self) -> Family:
        """The family of the base model, with its components."""
        return family_of({name: getattr(self, name, None) for name in self.config if not name.startswith("_")})

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.unet if hasattr(self, "unet") else self.transformer

    def _inject(self) -> None:
        """Inject the object encoder's layers around the attention processors that the denoiser has now."""
        eject(self.denoiser)
        layers, layer_names = self.object_encoder.denoiser_layers(), self.object_encoder.config["layers"]
        inject(self.denoiser, self.injection, layers, layer_names, self.family.text_length)
        inject_collage(self.family.first_layer, self.object_encoder.collage_layer)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Text:
        """T(c), the prompt embeddings; prompts are padded and truncated to the length of the text encoders."""
        family = self.family
        return family.text(family.token_ids(prompts).to(self._execution_device))

    @torch.no_grad()
    def encode_objects(self, subjects: Sequence[SubjectPhotos]) -> Float[Tensor, "objects tokens width"]:
        """z = E(o): one forward pass for all subjects; keep the result to use an object again.

        Args:
            subjects: square cut-outs, RGBA; RGB images are used as they are. For an object in R photos a list of R
                cut-outs, which gives R times as many tokens.

        Raises:
            TamingError: the objects have different numbers of photos.
        """
        photos = [[s] if isinstance(s, Image.Image) else list(s) for s in subjects]
        if len({len(p) for p in photos}) > 1:
            raise TamingError("Some objects come in more photos than others. Encode them one by one.")
        size = self.object_encoder.image_size
        pixels = torch.stack([subject_pixels(photo, size) for of_object in photos for photo in of_object])
        pixels = pixels.to(self._execution_device, self.denoiser.dtype)
        embeds = encode_subjects(self.object_encoder, self.family, pixels)
        return torch.unflatten(embeds, 0, (len(photos), -1)).flatten(1, 2)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        subject: Image.Image | Sequence[Image.Image] | None = None,
        object_embeds: Float[Tensor, "batch *count tokens width"] | None = None,
        num_inference_steps: int = 20,
        guidance_object: float = 3.5,
        guidance_text: float = 3.5,
        guidance_embedded: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        object_scale: float = 1.0,
        object_boxes: Sequence[Box] | Sequence[Sequence[Box]] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> StableDiffusionPipelineOutput | tuple[Any]:
        """Draw images.

        Args:
            prompt: one or more; `<object>` is the placeholder of the subject.
            subject: one cut-out for all prompts, or one per prompt; None for plain text-to-image.
            object_embeds: the result of `encode_objects`, instead of `subject`; one for all prompts, or one per prompt.
                For several objects in one image (batch, objects, K, D), in the order of their `<object>`.
            num_inference_steps: of the scheduler.
            guidance_object: s_obj; higher values favour the object's identity.
            guidance_text: s_txt; higher values favour the prompt.
            guidance_embedded: the scale for a guidance-distilled denoiser (FLUX.1-dev); None for 3.5.
            negative_prompt: one for all prompts, or one per prompt, which replaces the empty prompt in guidance.
            object_scale: weight of the attention that `decoupled`, `gated` and `reference` add to the base model's.
            object_boxes: where the objects go, for an encoder with a collage: x0, y0, x1, y1 as shares of width and
                height, one box per object for all prompts, or a list per prompt; None lets the model find a place.
            height, width: pixels; None for the model's default size.
            num_images_per_prompt: images of one prompt are consecutive.
            generator: one, or one per image, so that an image does not depend on its batch.
            latents: the initial noise, (images, C, H/f, W/f).
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: False returns a tuple.
            callback_on_step_end: called as `(pipeline, step, timestep, {"latents": ...})`; returns the same dict. It
                stops the sampling with `pipeline.interrupt = True`.
            callback_on_step_end_tensor_inputs: names of the callback's tensors; only `latents` is available.

        Raises:
            TamingError: there is neither one object nor one per prompt, or neither one negative prompt; `subject` and
                `object_embeds` are both given; a prompt has not as many `<object>` as there are objects, or has one
                beyond what the text encoder reads; the model does not support this image size; or an argument has no
                effect with this encoder or base.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = negative_prompts(negative_prompt, len(prompts))
        self._require_effect(guidance_embedded, callback_on_step_end_tensor_inputs)
        self._inject()
        self._set_object_scale(object_scale)
        embeds = self._object_embeds(prompts, subject, object_embeds)
        count = len(prompts) * num_images_per_prompt
        objects_per_image = 0 if embeds is None else embeds.shape[1]
        placeholders = EncoderInputs.of(self.object_encoder.config).empty_prompt_for(objects_per_image)
        empty_prompts = [f"{negative} {placeholders}".strip() for negative in negatives]
        for negative in negatives:
            require_guided(negative, guidance_text if embeds is None else guidance_object, guidance_text)
        self._require_read(prompts if embeds is None else [*prompts, *empty_prompts], with_objects=embeds is not None)
        text, null, null_with_object = (
            self._encode_prompts(texts, objects_per_image, count) for texts in (prompts, negatives, empty_prompts)
        )
        embeds = None if embeds is None else embeds.repeat_interleave(num_images_per_prompt, 0)
        boxes = self._boxes(object_boxes, len(prompts), objects_per_image)
        boxes = None if boxes is None else boxes.repeat_interleave(num_images_per_prompt, 0)

        model, self.interrupt = subject_model(self.components), False
        sample = self._initial_latents(count, height, width, generator, latents)
        passes = guidance_passes(text, null, null_with_object, embeds, guidance_object, guidance_text)
        if boxes is None and objects_per_image and self._lays_objects:
            boxes = find_places(model, sample, passes)
        model.family.set_timesteps(self.scheduler, num_inference_steps, self._execution_device, sample)
        sample = sample * getattr(self.scheduler, "init_noise_sigma", 1.0)
        embedded = (guidance_embedded or DEFAULT_EMBEDDED_GUIDANCE) if model.family.reads_guidance else None
        scale: Any = getattr(self.scheduler, "scale_model_input", _unscaled)
        extra = {"generator": generator} if _takes_generator(self.scheduler) else {}
        progress_bar: Any = self.progress_bar
        for step, t in enumerate(progress_bar(self.scheduler.timesteps)):
            if self.interrupt:
                break
            predicted = guided_prediction(model, scale(sample, t), t, passes, embedded, boxes)
            sample = self.scheduler.step(predicted, t, sample, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                tensors = {name: sample for name in callback_on_step_end_tensor_inputs}
                sample = callback_on_step_end(self, step, int(t), tensors).pop("latents", sample)
        images: Any = sample if output_type == "latent" else self._decode(sample, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=None) if return_dict else (images,)

    @property
    def num_timesteps(self) -> int:
        """Sampling steps of the last call."""
        return len(self.scheduler.timesteps)

    def _require_effect(self, guidance_embedded: float | None, callback_inputs: Sequence[str]) -> None:
        require_embedded_guidance(guidance_embedded, self.family.reads_guidance)
        if unknown := set(callback_inputs) - set(self._callback_tensor_inputs):
            raise TamingError(f"A callback can get {', '.join(self._callback_tensor_inputs)}, but not {min(unknown)}. "
                              "Leave it out of callback_on_step_end_tensor_inputs.")  # fmt: skip

    @property
    def _lays_objects(self) -> bool:
        """Whether images get a collage."""
        return self.object_encoder.config["collage"] is not None

    def _boxes(self, boxes: Any, prompts: int, objects: int) -> Float[Tensor, "prompts objects 4"] | None:
        """The boxes of each prompt; None for no collage, or where a place is to be found.

        Raises:
            TamingError: boxes are given that have no effect, or not one within the image for each object.
        """
        per_prompt: list[Any] = [] if boxes is None else list(boxes)
        if per_prompt and not isinstance(per_prompt[0][0], Sequence):
            per_prompt = [per_prompt] * prompts
        for of_prompt in per_prompt:
            require_boxes(of_prompt, objects, lays=self._lays_objects)
        if len(per_prompt) not in (0, prompts):
            raise TamingError(f"There are boxes for {len(per_prompt)} prompts, and there are {prompts}. Give them once "
                              "for all, or for each prompt.")  # fmt: skip
        if not self._lays_objects or objects == 0:
            return None
        if not per_prompt and objects == 1 and self.injection in ATTENDED and cross_attentions(self.denoiser):
            return None
        return torch.tensor(per_prompt or [side_by_side(objects)] * prompts, device=self._execution_device).float()

    def _set_object_scale(self, scale: float) -> None:
        require_object_scale(scale, self.injection)
        set_object_scale(self.denoiser, scale)

    def _require_read(self, prompts: Sequence[str], *, with_objects: bool) -> None:
        """Warn of words that no text encoder reads; raises TamingError if an `<object>` is among them."""
        family = self.family
        if with_objects:
            require_read(prompts, family.tokenizers[family.states_encoder], family.lengths[family.states_encoder])
        for prompt, end in zip(prompts, family.lost_words(prompts), strict=True):
            if end:
                warn_once(f"The prompt '{shorten(prompt)}' is too long for the text encoder, which does not read "
                          f"'{shorten(end)}'.")  # fmt: skip

    def _encode_prompts(self, prompts: Sequence[str], objects: int, count: int) -> EncodedPrompts:
        """Encode prompts and repeat each equally often, to a batch of `count`."""
        family = self.family
        ids = family.token_ids(prompts).to(self._execution_device)
        state_ids, placeholder, text = family.state_ids(ids), family.placeholder, family.text(ids)
        positions = find_placeholders(state_ids, placeholder, objects)
        states = placeholder_states(text.states, state_ids, placeholder, positions)
        repeats = count // len(prompts)
        return EncodedPrompts(
            text.map(lambda x: x.repeat_interleave(repeats, 0)),
            *(x.repeat_interleave(repeats, 0) for x in (positions, states)),
        )

    def _object_embeds(self, prompts: list[str], subject: Any, embeds: Tensor | None) -> Tensor | None:
        """The object embeddings of each prompt (prompts, objects, K, D), or None for plain text-to-image."""
        if subject is not None and embeds is not None:
            raise TamingError("Both subject and object_embeds are given. Give one of them.")
        if subject is not None:
            embeds = self.encode_objects([subject] if isinstance(subject, Image.Image) else subject)
        if embeds is None:
            return None
        if len(embeds) not in (1, len(prompts)):
            raise TamingError(f"{len(embeds)} objects for {len(prompts)} prompts. Give one, or one per prompt.")
        embeds = embeds if embeds.dim() == 4 else embeds[:, None]
        self._require_places(prompts, embeds.shape[1])
        return embeds.to(self._execution_device, self.denoiser.dtype).expand(len(prompts), -1, -1, -1)

    def _require_places(self, prompts: list[str], objects: int) -> None:
        """Require one placeholder per object, if there are several objects or the design needs the placeholder.

        Raises:
            TamingError: a prompt has more or fewer.
        """
        for prompt in prompts if objects > 1 or self.injection == "substitute" else ():
            if prompt.count(OBJECT) != objects:
                raise TamingError(f"The prompt '{prompt}' holds {OBJECT} {prompt.count(OBJECT)} times, and there are "
                                  f"{objects} objects. Write it once for each.")  # fmt: skip

    def _initial_latents(
        self, count: int, height: int | None, width: int | None, generator: Any, latents: Tensor | None
    ) -> Tensor:
        """The initial noise (count, C, H/f, W/f)."""
        family = self.family
        if latents is not None:
            return latents.to(self._execution_device, self.denoiser.dtype)
        sides = [family.image_size if side is None else side for side in (height, width)]
        require_image_size(sides[1], sides[0], family.size_multiple, family.max_size)
        shape = (count, family.latent_channels, *(side // family.vae_scale_factor for side in sides))
        generator = generator if generator is None or isinstance(generator, torch.Generator) else list(generator)
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.denoiser.dtype)

    def _decode(self, latents: Tensor, output_type: str) -> Any:
        return self.image_processor.postprocess(self.family.decode(latents).detach(), output_type=output_type)

    @property
    def injection(self) -> str:
        """The network design: how the object is injected into the denoiser."""
        return self.object_encoder.config["injection"]


def _local_folder(place: str, from_hub: Mapping[str, Any]) -> Path:
    """A folder, or that of a hub name in the cache, which holds all files then."""
    hub: Any = huggingface_hub  # its download functions are partly untyped
    return Path(place if Path(place).is_dir() else hub.snapshot_download(place, **from_hub))


@lru_cache(1024)  # a prompt is drawn many times
def warn_once(text: str) -> None:
    """Log a warning, as diffusers does, once."""
    logger.warning(text)


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def _unscaled(sample: Tensor, _: Tensor) -> Tensor:
    """For schedulers of flow matching, which have no `scale_model_input`."""
    return sample
