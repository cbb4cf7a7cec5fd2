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

from taming_core.attention import contexts, denoise, inject
from taming_core.conditions import subject_pixels, token_ids
from taming_core.errors import TamingError
from taming_core.object_encoder import ObjectEncoder

StepEnd = Callable[[DiffusionPipeline, int, int, dict[str, Tensor]], dict[str, Tensor]]


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
        inject(unet, object_encoder.denoiser_layers(), object_encoder.config["tokens"])

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "batch length width"]:
        """T(c): the hidden states of the text encoder; prompts are padded and cut to its length."""
        return text_states(self.tokenizer, self.text_encoder, prompts)

    @torch.no_grad()
    def encode_objects(self, subjects: Sequence[Image.Image]) -> Float[Tensor, "objects tokens width"]:
        """z = E(o): one forward pass for all subjects; keep the result to use an object again.

        Args:
            subjects: objects cut out of their photos, RGBA, square; RGB is taken as cut out already.
        """
        size = self.object_encoder.image_size
        pixels = torch.stack([subject_pixels(s, size) for s in subjects])
        return self.object_encoder(pixels.to(self._execution_device, self.object_encoder.dtype))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        subject: Image.Image | Sequence[Image.Image] | None = None,
        object_embeds: Float[Tensor, "batch tokens width"] | None = None,
        num_inference_steps: int = 20,
        guidance_object: float = 3.5,
        guidance_text: float = 3.5,
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
            object_embeds: what `encode_objects` gave, instead of `subject`; one for all prompts, or one per prompt.
            num_inference_steps: of the scheduler.
            guidance_object: s_obj, trades freedom for identity.
            guidance_text: s_txt, trades freedom for the prompt.
            height, width: pixels; the model's own size where None.
            num_images_per_prompt: images of one prompt stand together.
            generator: one, or one per image, so that an image does not depend on its batch.
            latents: the starting noise, (images, C, H/f, W/f).
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: False gives a tuple.
            callback_on_step_end: called as `(pipeline, step, timestep, {"latents": ...})`; returns the same dict.

        Raises:
            TamingError: neither one object nor one per prompt, or both `subject` and `object_embeds`.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        objects = self._objects(prompts, subject, object_embeds)
        count = len(prompts) * num_images_per_prompt
        text = self.encode_text(prompts).repeat_interleave(num_images_per_prompt, 0)
        objects = None if objects is None else objects.repeat_interleave(num_images_per_prompt, 0)
        null = self.encode_text([""]).expand(count, -1, -1)

        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        current = self._start(count, height, width, generator, latents)
        passes = guidance_passes(text, null, objects, guidance_object, guidance_text)
        extra = {"generator": generator} if _takes_generator(self.scheduler) else {}
        for step, t in enumerate(self.progress_bar(self.scheduler.timesteps)):  # pyright: ignore
            predicted = self._guided(self.scheduler.scale_model_input(current, t), t, passes)
            current = self.scheduler.step(predicted, t, current, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                current = callback_on_step_end(self, step, int(t), {"latents": current}).pop("latents", current)
        images: Any = current if output_type == "latent" else self._decoded(current, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=None) if return_dict else (images,)

    def _objects(self, prompts: list[str], subject: Any, embeds: Tensor | None) -> Tensor | None:
        """One object embedding per prompt, or None for plain text-to-image."""
        if subject is not None and embeds is not None:
            raise TamingError("Both subject and object_embeds are given. Give one of them.")
        if subject is not None:
            embeds = self.encode_objects([subject] if isinstance(subject, Image.Image) else subject)
        if embeds is None:
            return None
        if len(embeds) not in (1, len(prompts)):
            raise TamingError(f"{len(embeds)} objects for {len(prompts)} prompts. Give one, or one per prompt.")
        return embeds.to(self._execution_device).expand(len(prompts), -1, -1)

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

    def _guided(self, latents: Tensor, t: Tensor, passes: "list[tuple[float, Tensor, Tensor | None]]") -> Tensor:
        """The weighted sum of the denoiser's predictions, all of them in one batch."""
        texts = torch.cat([text for _, text, _ in passes])
        given = [o for _, _, o in passes if o is not None]
        present = torch.tensor([o is not None for _, _, o in passes], device=texts.device)
        objects, present = torch.cat(given) if given else None, present.repeat_interleave(len(latents))
        parts = contexts(texts, objects, present, self.injection, self.object_encoder.config["tokens"])
        batch = torch.cat([latents] * len(passes))
        out = denoise(self.unet, batch, t.to(batch.device).expand(len(batch)), parts)
        return sum(weight * e for (weight, _, _), e in zip(passes, out.chunk(len(passes)), strict=True))  # pyright: ignore[reportReturnType]

    def _decoded(self, latents: Tensor, output_type: str) -> Any:
        images = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False)[0]
        return self.image_processor.postprocess(images, output_type=output_type)

    @property
    def injection(self) -> str:
        """How the object enters the denoiser: `concat` or `decoupled`."""
        return self.object_encoder.config["injection"]


def guidance_passes(
    text: Tensor, null: Tensor, objects: Tensor | None, guidance_object: float, guidance_text: float
) -> list[tuple[float, Tensor, Tensor | None]]:
    """Two-way guidance as (weight, text, objects) per pass of the denoiser; passes of weight 0 are left out.

    eps = e(0,0) + s_obj (e(0,z) - e(0,0)) + s_txt (e(c,z) - e(0,z)), docs/method.md section 6. With equal scales
    e(0,z) cancels, and two passes do the work of three.
    """
    if objects is None:
        found = [(1 - guidance_text, null, None), (guidance_text, text, None)]
    else:
        found = [
            (1 - guidance_object, null, None),
            (guidance_object - guidance_text, null, objects),
            (guidance_text, text, objects),
        ]
    return [p for p in found if p[0] != 0]


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
