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
        TamingError: no family has a denoiser of this kind.
    """
    return family_class(components)(components)


def family_class(names: Mapping[str, Any]) -> type[Family]:
    """The family class for components of these names: a pipeline's components, or the entries of model_index.json.

    Raises:
        TamingError: no family has these components.
    """
    if "unet" in names:
        return StableDiffusionXL if "text_encoder_2" in names else StableDiffusion
    transformers = {"SD3Transformer2DModel": StableDiffusion3, "FluxTransformer2DModel": Flux}
    for name in class_names(names.get("transformer")):
        if name in transformers:
            return transformers[name]
    raise TamingError("This is no text-to-image model that is supported. Use a base of Stable Diffusion 1.5, 2.1, XL "
                      "or 3.5, or of FLUX.1.")  # fmt: skip


def class_names(component: Any) -> list[str]:
    """The class name of a component with those of its base classes; of a [library, class] entry just the class name.

    FSDP gives a sharded network a new class that inherits from the original one.
    """
    return [component[1]] if isinstance(component, list) else [kind.__name__ for kind in type(component).__mro__]
