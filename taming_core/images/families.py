"""The pipeline class of each family of base models, and `load_pipeline`."""

from collections.abc import Mapping
from typing import Any

from diffusers.loaders.lora_pipeline import (
    FluxLoraLoaderMixin,
    SD3LoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging as transformers_logging

from taming_core.bases.encoder_files import require_encoder
from taming_core.bases.flux import Flux
from taming_core.bases.load import Dtypes
from taming_core.bases.stable_diffusion import StableDiffusion
from taming_core.bases.stable_diffusion_3 import StableDiffusion3
from taming_core.bases.stable_diffusion_xl import StableDiffusionXL
from taming_core.images.pipeline import TamingPipeline
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.params.arguments import require_precision
from taming_core.weights.device import DTYPES

__all__ = [
    "TamingFluxPipeline",
    "TamingPipeline",
    "TamingStableDiffusion3Pipeline",
    "TamingStableDiffusionPipeline",
    "TamingStableDiffusionXLPipeline",
    "assemble",
    "load_pipeline",
]


class TamingStableDiffusionPipeline(TamingPipeline, StableDiffusionLoraLoaderMixin):
    """For Stable Diffusion 1.5 or 2.1, or `mini`."""

    family_type = StableDiffusion

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        object_encoder: ObjectEncoder,
    ) -> None:
        super().__init__(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            object_encoder=object_encoder,
        )  # fmt: skip


class TamingStableDiffusionXLPipeline(TamingPipeline, StableDiffusionXLLoraLoaderMixin):
    """For Stable Diffusion XL."""

    family_type = StableDiffusionXL

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer_2: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        object_encoder: ObjectEncoder,
    ) -> None:
        super().__init__(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2, unet=unet, scheduler=scheduler, object_encoder=object_encoder,
        )  # fmt: skip


class TamingStableDiffusion3Pipeline(TamingPipeline, SD3LoraLoaderMixin):
    """For Stable Diffusion 3 or 3.5, with or without T5."""

    family_type = StableDiffusion3

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer_2: PreTrainedTokenizerBase,
        transformer: SD3Transformer2DModel,
        scheduler: SchedulerMixin,
        object_encoder: ObjectEncoder,
        text_encoder_3: T5EncoderModel | None = None,
        tokenizer_3: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2, text_encoder_3=text_encoder_3, tokenizer_3=tokenizer_3, transformer=transformer,
            scheduler=scheduler, object_encoder=object_encoder,
        )  # fmt: skip


class TamingFluxPipeline(TamingPipeline, FluxLoraLoaderMixin):
    """For FLUX.1."""

    family_type = Flux

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder_2: T5EncoderModel,
        tokenizer_2: PreTrainedTokenizerBase,
        transformer: FluxTransformer2DModel,
        scheduler: SchedulerMixin,
        object_encoder: ObjectEncoder,
    ) -> None:
        super().__init__(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2, transformer=transformer, scheduler=scheduler, object_encoder=object_encoder,
        )  # fmt: skip


def assemble(parts: Mapping[str, Any], object_encoder: ObjectEncoder) -> TamingPipeline:
    """The pipeline of a text-to-image model's components and an object encoder."""
    return TamingPipeline.class_for(parts)(**parts, object_encoder=object_encoder)


def load_pipeline(
    spec: str,
    device: str = "cpu",
    precision: str | Dtypes = "fp32",
    offload: bool = False,
    base: str | None = None,
) -> TamingPipeline:
    """The pipeline of `mini` or of a folder that `taming train` wrote.

    Args:
        spec: `mini`, or the folder.
        device: a torch device.
        precision: of the weights, one of `PRECISIONS`, or a torch dtype for each component.
        offload: whether to enable diffusers' model CPU offload.
        base: see `TamingPipeline.from_pretrained`.

    Raises:
        TamingError: there is no such folder, or it holds no pipeline; its base is missing or another; or the device
            does not support `precision` or `offload`.
    """
    if isinstance(precision, str):
        require_precision(precision, device, offload)
    folder, dtype = require_encoder(spec), DTYPES[precision] if isinstance(precision, str) else precision
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline: Any = TamingPipeline.from_pretrained(folder, base=base, dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    return pipeline.to(device)
