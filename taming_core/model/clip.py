"""CLIP vision towers: weights and image normalization (Radford et al., 2021)."""

from typing import Any

from transformers import CLIPImageProcessor, CLIPVisionModel

from taming_core.weights.load import load_network
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

Channels = tuple[float, float, float]


def source(spec: str) -> str:
    """The folder of `mini`, the parent folder of a file, or the given folder or hub name."""
    return source_of(spec, MINI / "clip")


def load_clip(kind: Any, spec: str, key: str, what: str = "CLIP model") -> Any:
    """A model of the class `kind` in float32 and evaluation mode.

    Args:
        kind: a transformers class.
        spec: `mini`, a folder or a hub name.
        key: the params key of the model, for error messages.
        what: the name of such a model, for error messages.

    Raises:
        TamingError: there is no such model, or it is of another class.
    """
    return load_network(kind, source(spec), what, key)


def normalization(spec: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel, of images in [0, 1]; `mini` takes images in [-1, 1]."""
    if spec == "mini":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    processor_class: Any = CLIPImageProcessor
    try:
        processor = processor_class.from_pretrained(source(spec))
    except OSError:
        processor = processor_class()
    return tuple(processor.image_mean), tuple(processor.image_std)


def load_tower(spec: str) -> CLIPVisionModel:
    """The vision tower of a CLIP model."""
    return load_clip(CLIPVisionModel, spec, "the tower")
