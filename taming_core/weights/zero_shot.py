"""Comparing images with texts by CLIP (Radford et al., 2021)."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from taming_core.errors import TamingError
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars, preprocess_images
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

# Images (H, W, 3) uint8 and texts -> cosine similarities (images, texts).
Similarity = Callable[[Sequence[NDArray[np.uint8]], Sequence[str]], NDArray[np.float32]]
WHAT = "classifier"
TEXTS = 1024  # lists of texts whose features are kept


def load_similarity(spec: str, device: str, key: str) -> tuple[Similarity, np.float32]:
    """A callable that compares images with texts, and the scale of the logits of a zero-shot classification.

    `spec` is `mini`, a folder, or a hub name of a model with features of images and texts, such as CLIP or SigLIP;
    `key` is the setting that names it, for messages. Texts are truncated to the length that the model takes.

    Raises:
        TamingError: there is no such model, or it has no text encoder.
    """
    source = source_of(spec, MINI / "clip")
    model = load_network(AutoModel, source, WHAT, key).to(device)
    if not hasattr(model, "get_text_features"):
        raise TamingError(f"{spec} has no text encoder. Set {key} to mini or to a CLIP model.")
    with no_progress_bars(), as_taming_error(source, WHAT, key):
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(source)
        processor = cast(Any, AutoImageProcessor).from_pretrained(source)
    length = model.config.text_config.max_position_embeddings

    @lru_cache(maxsize=TEXTS)
    def encode(texts: tuple[str, ...]) -> Float[Tensor, "texts features"]:
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return F.normalize(model.get_text_features(input_ids=tokens.input_ids.to(device)).pooler_output, dim=-1)

    @torch.no_grad()
    def similarity(images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> NDArray[np.float32]:
        pixels = preprocess_images(processor, images).to(device)
        features = F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        return (features @ encode(tuple(texts)).T).cpu().numpy()

    return similarity, np.float32(model.logit_scale.exp().item())
