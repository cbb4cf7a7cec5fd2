"""CLIP vision towers: where they lie, and how they want their pictures (Radford et al., 2021)."""

from typing import Any

from transformers import CLIPImageProcessor, CLIPVisionModel

from taming_core.weights.load import load_network
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

Channels = tuple[float, float, float]


def source(spec: str) -> str:
    """The folder of `mini`, the folder of a file, else the folder or hub name itself."""
    return source_of(spec, MINI / "clip")


def load_clip(kind: Any, spec: str, key: str, what: str = "CLIP model") -> Any:
    """A model of the class `kind` in float32, evaluating; messages call it `what`, and its setting `key`.

    Raises:
        TamingError: there is no such model, or it is of another kind.
    """
    return load_network(kind, source(spec), what, key)


def normalization(spec: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel, of pictures in [0, 1]; `mini` takes pictures in [-1, 1]."""
    if spec == "mini":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    try:
        processor: Any = CLIPImageProcessor.from_pretrained(source(spec))
    except OSError:
        processor = CLIPImageProcessor()
    return tuple(processor.image_mean), tuple(processor.image_std)


def load_tower(spec: str) -> CLIPVisionModel:
    """The vision tower of a CLIP model."""
    return load_clip(CLIPVisionModel, spec, "the tower")
