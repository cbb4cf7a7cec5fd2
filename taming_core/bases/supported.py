"""Which checkpoints of a family are text-to-image models: others have the same classes, and further inputs."""

from collections.abc import Iterator, Mapping
from typing import Any

from taming_core.errors import TamingError

Config = Mapping[str, Any]
# What further input channels of a denoiser are for, by its channels as a multiple of the latents'.
INPUTS: dict[str, dict[float, str]] = {
    "UNet2DConditionModel": {
        9 / 4: "an inpainting model", 8 / 4: "an image-editing model such as InstructPix2Pix", 7 / 4: "an upscaler",
        5 / 4: "a depth-to-image model",
    },
    "SD3Transformer2DModel": {33 / 16: "an inpainting model", 2: "an image-editing model"},
    # It reads patches of 2 x 2 latents.
    "FluxTransformer2DModel": {
        24: "an inpainting model such as FLUX.1 Fill", 8: "a control model such as FLUX.1 Depth",
    },
}  # fmt: skip


def require_text_to_image(spec: str, configs: Mapping[str, Config]) -> None:
    """Require a checkpoint that takes text and nothing else.

    Args:
        spec: its name, for the message.
        configs: of the denoiser and the autoencoder, and at least the names of the text encoders.

    Raises:
        TamingError: it is a model for inpainting, editing, upscaling or refining, or has another condition; the message
            names what it is.
    """
    for kind in other_kinds(configs):
        raise TamingError(f"{spec} is {kind}, which takes more than a text. Name the text-to-image model that it was "
                          "made from as train.base.")  # fmt: skip


def other_kinds(configs: Mapping[str, Config]) -> Iterator[str]:
    """What a checkpoint is, if not a text-to-image model; the first is the most specific."""
    denoiser = configs["unet"] if "unet" in configs else configs["transformer"]
    latents = configs["vae"].get("latent_channels", 4)
    channels = denoiser.get("in_channels", latents)
    patch = 4 if denoiser.get("_class_name") == "FluxTransformer2DModel" else 1
    if "text_encoder_2" in configs and "text_encoder" not in configs:
        yield "an image refiner"
    if denoiser.get("class_embed_type") is not None:
        yield "an unCLIP model"
    if channels != patch * latents:
        known = INPUTS.get(denoiser.get("_class_name", ""), {})
        yield known.get(channels / latents, f"a model of {channels} input channels for {latents} of the latents")
    if denoiser.get("num_class_embeds") is not None:
        yield "a class-conditional model"
    if denoiser.get("encoder_hid_dim_type") or denoiser.get("addition_embed_type") not in (None, "text_time"):
        yield "a model conditioned on images"
    if denoiser.get("time_cond_proj_dim") is not None:
        yield "a distilled model whose UNet reads the guidance scale"
