"""CLIP vision towers: where they lie, and how they want their pictures (Radford et al., 2021)."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPImageProcessor, CLIPVisionModel
from transformers.utils import logging

from taming_core.errors import TamingError

Channels = tuple[float, float, float]
MINI = Path(__file__).parent / "mini" / "clip"


def place(spec: str) -> str:
    """The folder of `mini`, else the folder or hub name itself."""
    return str(MINI) if spec == "mini" else spec


def loaded(kind: Any, spec: str) -> Any:
    """A model of the class `kind` in float32.

    Raises:
        TamingError: there is no such model, or it is of another kind.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list the weights of the text tower, which is not wanted here
    try:
        found = kind.from_pretrained(place(spec), dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: weights of other shapes
        raise TamingError(f"There is no CLIP model {spec}. Name `mini`, a folder with its config.json and "
                          f"model.safetensors, or a model that `hf download {spec}` finds.") from error  # fmt: skip
    finally:
        logging.set_verbosity(verbosity)
    model, report = found
    if missing := sorted(report["missing_keys"]):
        raise TamingError(f"{spec} is no CLIP model, for it has no {missing[0]}. Name `mini` or another.")
    return model


def normalization(spec: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel, of pictures in [0, 1]; `mini` takes pictures in [-1, 1]."""
    if spec == "mini":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    try:
        processor: Any = CLIPImageProcessor.from_pretrained(place(spec))
    except OSError:
        processor = CLIPImageProcessor()
    return tuple(processor.image_mean), tuple(processor.image_std)


def load_tower(spec: str) -> CLIPVisionModel:
    """The vision tower of a CLIP model."""
    return loaded(CLIPVisionModel, spec)
