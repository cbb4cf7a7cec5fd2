"""Pipelines of every family of base models with a fresh encoder, and how they and diffusers' own are called."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import tiny
import tiny_bases
import torch
from tiny_bases import FAMILIES

from taming_core.bases.families import family_of
from taming_core.bases.placeholder import add_placeholder_token
from taming_core.images.families import TamingPipeline, assemble
from taming_core.params.train import TrainParams
from taming_core.training.start import new_object_encoder

PROMPTS = ["a photo of a dog on the beach", "a cat"]
CALL = {"num_inference_steps": 3, "height": 32, "width": 48, "output_type": "np"}
# What diffusers calls our guidance of the text; FLUX reads its own, and has no other here.
GUIDED: dict[str, dict[str, Any]] = {
    "sd15": {"guidance_scale": 4.0}, "sdxl": {"guidance_scale": 4.0},
    "sd3": {"guidance_scale": 4.0, "max_sequence_length": tiny_bases.T5_LENGTH},
    "flux": {"guidance_scale": 2.5, "max_sequence_length": tiny_bases.T5_LENGTH},
}  # fmt: skip
OURS: dict[str, dict[str, Any]] = {name: {"guidance_text": 4.0} for name in FAMILIES} | {
    "flux": {"guidance_text": 1.0, "guidance_embedded": 2.5}
}


@cache
def tower() -> str:
    """The folder of a tiny CLIP model."""
    return tiny.clip(Path(tempfile.mkdtemp()))


def params(family: str, injection: str, **more: Any) -> TrainParams:
    encoder = {"tower": tower(), "projector": "resampler", "tokens": 3, "tower_blocks": 0}
    fresh = {"start": None, "base": family, "injection": injection, "background": "removed", "encoder": encoder}
    return tiny.train_params(**{**fresh, **more})


def tamed(family: str, injection: str, parts: dict[str, Any] | None = None) -> TamingPipeline:
    """A base with a fresh encoder."""
    parts = parts or tiny_bases.parts(family)
    found = family_of(parts)
    for tokenizer, encoder in zip(found.tokenizers, found.text_encoders.values(), strict=True):
        add_placeholder_token(tokenizer, encoder)
    made = assemble(parts, new_object_encoder(found, params(family, injection)))
    made.set_progress_bar_config(disable=True)
    return made


def seeds() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in range(2)]
