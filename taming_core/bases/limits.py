"""Image sizes and prompt lengths of a base model, by the configs of its denoiser and its autoencoder."""

from collections.abc import Callable, Mapping
from typing import Any

from taming_core.errors import TamingError

Config = Mapping[str, Any]


def vae_scale_factor(vae: Config) -> int:
    """Pixels per latent, along each side."""
    return 2 ** (len(vae["block_out_channels"]) - 1)


def unet_multiple(unet: Config, vae: Config) -> int:
    """Image sides must be multiples of it: a UNet halves the latents between its blocks."""
    return vae_scale_factor(vae) * 2 ** (len(unet["block_out_channels"]) - 1)


def patch_multiple(transformer: Config, vae: Config) -> int:
    """As `unet_multiple`: Stable Diffusion 3 reads patches of latents."""
    return vae_scale_factor(vae) * transformer["patch_size"]


def packed_multiple(transformer: Config, vae: Config) -> int:  # noqa: ARG001  (as the others)
    """As `unet_multiple`: FLUX reads packed latents, 2 x 2 in each."""
    return vae_scale_factor(vae) * 2


def longest_side(transformer: Config, vae: Config) -> int:
    """The longest image side that Stable Diffusion 3 has position embeddings for."""
    return patch_multiple(transformer, vae) * transformer["pos_embed_max_size"]


MULTIPLES: dict[str, Callable[[Config, Config], int]] = {  # by the class name of the denoiser
    "UNet2DConditionModel": unet_multiple,
    "SD3Transformer2DModel": patch_multiple,
    "FluxTransformer2DModel": packed_multiple,
}
# Tokens that T5 gets at most, as in diffusers' pipelines.
T5_LENGTHS = {"SD3Transformer2DModel": 256, "FluxTransformer2DModel": 512}
OBJECT_READERS = {"FluxTransformer2DModel": 1}  # number of the text encoder that `<object>` is read from, if not 0


def require_image_size(width: int, height: int, multiple: int, longest: int | None) -> None:
    """Raises TamingError if a side is no multiple of `multiple`, or longer than `longest`."""
    if width % multiple or height % multiple:
        raise TamingError(f"This base cannot draw {width} x {height} pixels. Set height and width to multiples of "
                          f"{multiple}.")  # fmt: skip
    if longest is not None and max(width, height) > longest:
        raise TamingError(f"This base cannot draw {width} x {height} pixels. Set height and width to {longest} at "
                          "most.")  # fmt: skip
