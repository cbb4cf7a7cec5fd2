"""What the model is told besides noise: prompts as token ids, and cut-outs as pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

OBJECT = "<object>"


def token_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> Int[Tensor, "batch length"]:
    """Token ids of the prompts, padded and cut to the tokenizer's length."""
    fit = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    return tokenizer(list(prompts), **fit, return_tensors="pt").input_ids


def subject_pixels(subject: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """The cut-out on mid-grey in [-1, 1]; grey is 0, so that the ground says nothing."""
    rgba = np.asarray(subject.convert("RGBA").resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    colour, alpha = rgba[..., :3] * 2 - 1, rgba[..., 3:]
    return torch.from_numpy(colour * alpha).permute(2, 0, 1)
