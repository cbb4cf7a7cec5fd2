"""Photos in, a customization encoder you own out.

The public API; nothing is imported before it is used, so that `import taming_core` costs nothing.

>>> from taming_core import load_pipeline
>>> load_pipeline("mini").object_encoder.config["tokens"]
256
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taming_core.images.families import TamingPipeline, load_pipeline
    from taming_core.model.object_encoder import ObjectEncoder

    __version__: str

__all__ = ["ObjectEncoder", "TamingPipeline", "__version__", "load_pipeline"]

MODULES = {  # of each public name
    "ObjectEncoder": "taming_core.model.object_encoder",
    "TamingPipeline": "taming_core.images.families",
    "load_pipeline": "taming_core.images.families",
    # Not ours: diffusers looks for it beside a class that model_index.json names, to see how that is loaded.
    "ModelMixin": "diffusers.models.modeling_utils",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("taming")
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
