"""What the model is told besides noise: prompts as token ids, and pictures of the object as pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from taming_core.language.placeholder import OBJECT
from taming_core.tables.row_images import Background


@dataclass(frozen=True)
class EncoderInputs:
    """What an object encoder needs in its batches."""

    background: Background  # of the pictures that it sees
    empty_prompt: str  # what stands for a dropped caption where the object is shown

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "EncoderInputs":
        """As an object encoder's `config` wants it."""
        # `substitute` puts the embedding in the place of the word, which must be there.
        return cls(config["background"], OBJECT if config["injection"] == "substitute" else "")


def subject_pixels(subject: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """The picture (RGBA) on mid-grey in [-1, 1]; grey is 0, so that the ground of a cut-out says nothing."""
    rgba = np.asarray(subject.convert("RGBA").resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    colour, alpha = rgba[..., :3] * 2 - 1, rgba[..., 3:]
    return torch.from_numpy(colour * alpha).permute(2, 0, 1)
