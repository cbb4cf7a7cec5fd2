"""Which family a text-to-image model belongs to."""

from collections.abc import Mapping
from typing import Any

from taming_core.bases.family import Family
from taming_core.bases.flux import Flux
from taming_core.bases.stable_diffusion import StableDiffusion
from taming_core.bases.stable_diffusion_3 import StableDiffusion3
from taming_core.bases.stable_diffusion_xl import StableDiffusionXL
from taming_core.errors import TamingError

FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)


def family_of(components: Mapping[str, Any]) -> Family:
    """The family of a pipeline's components.

    Raises:
        TamingError: none has a denoiser of this kind.
    """
    return family_class(components)(components)


def family_class(names: Mapping[str, Any]) -> type[Family]:
    """The class of the family with parts of these names, as a pipeline's components or its model_index.json have them.

    Raises:
        TamingError: none has these parts.
    """
    if "unet" in names:
        return StableDiffusionXL if "text_encoder_2" in names else StableDiffusion
    part = names.get("transformer")
    transformers = {"SD3Transformer2DModel": StableDiffusion3, "FluxTransformer2DModel": Flux}
    # A network whose weights are shared out among processes is of a class made of its own.
    for name in [part[1]] if isinstance(part, list) else [kind.__name__ for kind in type(part).__mro__]:
        if name in transformers:
            return transformers[name]
    raise TamingError("This is no text-to-image model that can be tamed. Use a base of Stable Diffusion 1.5, 2.1, XL "
                      "or 3.5, or of FLUX.1.")  # fmt: skip
