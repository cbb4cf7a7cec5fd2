"""The model's inputs besides noise: prompts as token ids, and photos of the object as pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.language.placeholder import OBJECT
from taming_core.tables.row_images import Background


@dataclass(frozen=True)
class EncoderInputs:
    """How batches are made for an object encoder."""

    background: Background  # of the subject images
    empty_prompt: str  # replaces a dropped caption of a sample with one object
    collage: bool = False  # whether the denoiser reads the places of objects

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "EncoderInputs":
        """The inputs for an object encoder with this `config`."""
        # `substitute` replaces the placeholder's embedding, and an encoder that binds each object to its placeholder
        # reads it, so that even the empty prompt needs one.
        reads_placeholder = config["injection"] == "substitute" or config.get("binding") is not None
        return cls(config["background"], OBJECT if reads_placeholder else "", config.get("collage") is not None)

    def empty_prompt_for(self, objects: int) -> str:
        """The prompt that replaces a dropped caption of a sample with this many objects.

        >>> EncoderInputs("removed", "<object>").empty_prompt_for(2)
        '<object> and <object>'
        """
        return " and ".join([self.empty_prompt] * objects) if self.empty_prompt else ""


@dataclass(frozen=True)
class Batch:
    """Training examples side by side: what the model reads, and what its losses compare with.

    Where the output of a frozen module is cached, it takes the place of the module's input.
    """

    row_ids: tuple[str, ...]
    target: Float[Tensor, "batch 3 height width"] | None  # x in [-1, 1]; None where its latents are cached
    mask: Float[Tensor, "batch 1 height width"]  # m in {0, 1}, of all objects of a sample
    tokens: Int[Tensor, "batch length"]  # token ids for every text encoder, side by side
    object_counts: tuple[int, ...]  # how many objects the denoiser gets for each sample
    subject: Float[Tensor, "batch objects references 3 size size"]  # o in [-1, 1], in the order of their `<object>`
    view: Float[Tensor, "batch 3 side side"] | None  # o', the reference of the identity loss; None without it
    frame: Float[Tensor, "batch 4"] | None  # see `Example`
    boxes: Float[Tensor, "batch objects 4"] | None = None  # of the objects (`collage.Boxes`); None without a collage
    sizes: Float[Tensor, "batch 4"] | None = None  # see `Example`; None for images that are whole and not scaled
    latent_mean: Float[Tensor, "batch channels rows columns"] | None = None  # of the target's posterior
    latent_std: Float[Tensor, "batch channels rows columns"] | None = None
    text_states: Float[Tensor, "batch text_length text_width"] | None = None
    text_pooled: Float[Tensor, "batch pooled_width"] | None = None
    tower_features: Float[Tensor, "batch objects references *patches tower_width"] | None = None  # 0 if not cached
    cached: Bool[Tensor, "batch objects references"] | None = None  # which photos have cached features; on the CPU

    @property
    def present(self) -> Bool[Tensor, " batch"]:
        """Which samples have an object; on the CPU."""
        return torch.tensor(self.object_counts) > 0

    @property
    def text(self) -> Text | None:
        """The cached text conditioning."""
        return None if self.text_states is None else Text(self.text_states, self.text_pooled)


def subject_pixels(subject: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """The subject (RGBA) on a mid-grey background, in [-1, 1]; mid-grey is 0, so that the background has no signal."""
    rgba = np.asarray(subject.convert("RGBA").resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    colour, alpha = rgba[..., :3] * 2 - 1, rgba[..., 3:]
    return torch.as_tensor(colour * alpha).permute(2, 0, 1)
