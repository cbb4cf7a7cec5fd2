"""The text-to-image model that a baseline tunes, as a pipeline."""

from pathlib import Path
from typing import Any

from taming_core.bases.families import family_of
from taming_core.bases.load import load_base, model_index
from taming_core.bases.placeholder import add_placeholder_token
from taming_core.images.families import TamingPipeline, assemble, load_pipeline
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.weights.device import DTYPES

# The smallest tower that the class can have: an object encoder that no baseline uses.
SMALLEST = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 16,
    "patch_size": 16,
}  # fmt: skip


def load_tunable(spec: str, device: str, precision: str) -> TamingPipeline:
    """The pipeline of a text-to-image model, or that of an encoder with its own.

    Args:
        spec: `mini`, an encoder folder, a folder in the layout of diffusers, or a hub name.
        device: a torch device.
        precision: of the weights, one of `PRECISIONS`.

    Raises:
        TamingError: there is no such model, or its family is not supported.
    """
    if spec == "mini" or is_encoder_folder(Path(spec).expanduser()):
        return load_pipeline(spec, device, precision)
    parts = load_base(spec, DTYPES[precision])
    family = family_of(parts)
    for tokenizer, text_encoder in zip(family.tokenizers, family.text_encoders.values(), strict=True):
        add_placeholder_token(tokenizer, text_encoder)
    unused: Any = ObjectEncoder(SMALLEST, "full", 1, family.width, injection="concat", layers=None)
    pipeline: Any = assemble(parts, unused.to(DTYPES[precision]).eval())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def is_encoder_folder(folder: Path) -> bool:
    """Whether a folder is what `taming train` wrote."""
    return (folder / "model_index.json").is_file() and "object_encoder" in model_index(str(folder))
