"""TamingPipeline: a photo of a thing and a prompt to images of that very thing (docs/method.md section 6)."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from taming_core.attention import LAYERS, inject, rescale
from taming_core.conditions import OBJECT, Shown, subject_pixels, token_ids
from taming_core.contexts import holes_in
from taming_core.errors import TamingError
from taming_core.guidance import Words, guidance_passes, guided
from taming_core.object_encoder import ObjectEncoder, embed
from taming_core.subject_model import subject_model

StepEnd = Callable[[DiffusionPipeline, int, int, dict[str, Tensor]], dict[str, Tensor]]
Subject = Image.Image | Sequence[Image.Image]  # an object, in one photo or in several


class TamingPipeline(DiffusionPipeline):
    """A text-to-image model that takes an object beside the text; opened with `from_pretrained(folder)`."""

    model_cpu_offload_seq = "text_encoder->object_encoder->unet->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        object_encoder: ObjectEncoder,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            object_encoder=object_encoder,
        )  # fmt: skip
        # Opened without a dtype, transformers keeps the stored half precision, and diffusers turns to single.
        text_encoder.to(unet.dtype)  # pyright: ignore[reportArgumentType]
        self.vae_scale = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale)
        layers, seeing = object_encoder.denoiser_layers(), object_encoder.config["layers"]
        inject(unet, self.injection, layers, seeing, tokenizer.model_max_length)

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch length width"]:
        """T(c): the hidden states of the text encoder; prompts are padded and cut to its length."""
        return text_states(self.tokenizer, self.text_encoder, prompts)

    @torch.no_grad()
    def encode_objects(self, subjects: Sequence[Subject]) -> Float[Tensor, "objects tokens width"]:
        """z = E(o): one forward pass for all subjects; keep the result to use an object again.

        Args:
            subjects: objects cut out of their photos, RGBA, square; RGB is taken as cut out already. For an object in
                R photos a list of R, which gives it R times as many tokens.

        Raises:
            TamingError: some objects come in more photos than others.
        """
        photos = [[s] if isinstance(s, Image.Image) else list(s) for s in subjects]
        if len({len(p) for p in photos}) > 1:
            raise TamingError("Some objects come in more photos than others. Encode them one by one.")
        size = self.object_encoder.image_size
        pixels = torch.stack([subject_pixels(photo, size) for seen in photos for photo in seen])
        encoder = self.object_encoder
        found = embed(encoder, self.vae, pixels.to(self._execution_device, self.unet.dtype))
        return found.unflatten(0, (len(photos), -1)).flatten(1, 2)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        subject: Image.Image | Sequence[Image.Image] | None = None,
        object_embeds: Float[Tensor, "batch *count tokens width"] | None = None,
        num_inference_steps: int = 20,
        guidance_object: float = 3.5,
        guidance_text: float = 3.5,
        object_scale: float = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
    ) -> StableDiffusionPipelineOutput | tuple[Any]:
        """Draw images.

        Args:
            prompt: one or more; `<object>` stands for the subject.
            subject: one cut-out for all prompts, or one per prompt; without it plain text-to-image.
            object_embeds: what `encode_objects` gave, instead of `subject`; one for all prompts, or one per prompt. Of
                several objects in one image (batch, objects, K, D), in the order of their `<object>`.
            num_inference_steps: of the scheduler.
            guidance_object: s_obj, trades freedom for identity.
            guidance_text: s_txt, trades freedom for the prompt.
            object_scale: weight of what `decoupled`, `gated` and `reference` add to the base model's own attention.
            height, width: pixels; the model's own size where None.
            num_images_per_prompt: images of one prompt stand together.
            generator: one, or one per image, so that an image does not depend on its batch.
            latents: the starting noise, (images, C, H/f, W/f).
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: False gives a tuple.
            callback_on_step_end: called as `(pipeline, step, timestep, {"latents": ...})`; returns the same dict.

        Raises:
            TamingError: neither one object nor one per prompt, both `subject` and `object_embeds`, another number of
                `<object>` in a prompt than of objects, or a scale that the design cannot heed.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        self._rescale(object_scale)
        objects = self._objects(prompts, subject, object_embeds)
        count = len(prompts) * num_images_per_prompt
        shown = 0 if objects is None else objects.shape[1]
        bare = " and ".join([Shown.of(self.object_encoder.config).silence] * shown)
        text, null, silent = (self._words(said, shown, count) for said in (prompts, [""], [bare]))
        objects = None if objects is None else objects.repeat_interleave(num_images_per_prompt, 0)

        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        current = self._start(count, height, width, generator, latents)
        passes = guidance_passes(text, null, silent, objects, guidance_object, guidance_text)
        model = subject_model(self.components)
        extra = {"generator": generator} if _takes_generator(self.scheduler) else {}
        for step, t in enumerate(self.progress_bar(self.scheduler.timesteps)):  # pyright: ignore
            predicted = guided(model, self.scheduler.scale_model_input(current, t), t, passes)
            current = self.scheduler.step(predicted, t, current, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                current = callback_on_step_end(self, step, int(t), {"latents": current}).pop("latents", current)
        images: Any = current if output_type == "latent" else self._decoded(current, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=None) if return_dict else (images,)

    def _rescale(self, scale: float) -> None:
        if scale != 1 and self.injection not in LAYERS:
            raise TamingError(f"object_scale has no effect on {self.injection}, which adds nothing. Leave it at 1.")
        rescale(self.unet, scale)

    def _words(self, said: Sequence[str], objects: int, count: int) -> Words:
        """Text states and places of `<object>`, the same number of each prompt, `count` in all."""
        ids = token_ids(self.tokenizer, said).to(self._execution_device)
        holes = holes_in(ids, self.tokenizer.convert_tokens_to_ids(OBJECT), objects)  # pyright: ignore
        states = self.text_encoder(input_ids=ids).last_hidden_state
        return tuple(x.repeat_interleave(count // len(said), 0) for x in (states, holes))  # pyright: ignore

    def _objects(self, prompts: list[str], subject: Any, embeds: Tensor | None) -> Tensor | None:
        """The objects of each prompt (prompts, objects, K, D), or None for plain text-to-image."""
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
        return embeds.to(self._execution_device, self.unet.dtype).expand(len(prompts), -1, -1, -1)

    def _require_places(self, prompts: list[str], objects: int) -> None:
        """Raises TamingError where a prompt does not say where each of the objects goes, and the design must know."""
        for prompt in prompts if objects > 1 or self.injection == "substitute" else ():
            if prompt.count(OBJECT) != objects:
                raise TamingError(f"The prompt '{prompt}' holds {OBJECT} {prompt.count(OBJECT)} times, and there are "
                                  f"{objects} objects. Write it once for each.")  # fmt: skip

    def _start(
        self, count: int, height: int | None, width: int | None, generator: Any, latents: Tensor | None
    ) -> Tensor:
        """The noise to start from, scaled as the scheduler wants it."""
        size = self.unet.config.sample_size
        h, w = (size if side is None else side // self.vae_scale for side in (height, width))
        if latents is None:
            shape = (count, self.unet.config.in_channels, h, w)
            generator = generator if generator is None or isinstance(generator, torch.Generator) else list(generator)
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        return latents.to(self._execution_device, self.unet.dtype) * self.scheduler.init_noise_sigma

    def _decoded(self, latents: Tensor, output_type: str) -> Any:
        images = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False)[0]
        return self.image_processor.postprocess(images, output_type=output_type)

    @property
    def injection(self) -> str:
        """How the object enters the denoiser: the network design."""
        return self.object_encoder.config["injection"]


def text_states(
    tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel, prompts: Sequence[str]
) -> Float[Tensor, "batch length width"]:
    """Hidden states (B, L, D) of prompts padded and cut to the tokenizer's length."""
    ids = token_ids(tokenizer, prompts)
    return text_encoder(input_ids=ids.to(text_encoder.device)).last_hidden_state


def _takes_generator(scheduler: SchedulerMixin) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters  # pyright: ignore[reportAttributeAccessIssue]


def mini_folder() -> Path:
    """The embedded default's pipeline folder."""
    return Path(__file__).parent / "pretrained" / "mini" / "encoder"


def load_pipeline(spec: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> TamingPipeline:
    """The pipeline of `mini` or of a folder that `taming train` wrote.

    Raises:
        TamingError: there is no such folder, or it is no pipeline.
    """
    folder = mini_folder() if spec == "mini" else Path(spec)
    if not (folder / "model_index.json").is_file():
        raise TamingError(f"{folder} holds no encoder. Run `taming train` first, or name `mini` or another folder.")
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = TamingPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
