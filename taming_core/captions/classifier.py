"""Zero-shot classification with CLIP (Radford et al., 2021): how well texts describe images."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from taming_core.captions.attributes import Classifier
from taming_core.captions.captioner import preprocess_images
from taming_core.errors import TamingError
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

KEY, WHAT = "caption.attributes.model", "classifier"
TEXTS = 1024  # lists of texts whose features are kept


def load_classifier(spec: str, device: str) -> Classifier:
    """A callable from images (H, W, 3) uint8 and texts to logits (images, texts); texts are truncated.

    `spec` is `mini`, a folder, or a hub name of a model with features of images and texts, such as CLIP or SigLIP.

    Raises:
        TamingError: there is no such model, or it has no text encoder.
    """
    source = source_of(spec, MINI / "clip")
    model = load_network(AutoModel, source, WHAT, KEY).to(device)
    if not hasattr(model, "get_text_features"):
        raise TamingError(f"{spec} has no text encoder. Set {KEY} to mini or to a CLIP model.")
    with no_progress_bars(), as_taming_error(source, WHAT, KEY):
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(source)
        processor = cast(Any, AutoImageProcessor).from_pretrained(source)
    length = model.config.text_config.max_position_embeddings

    @lru_cache(maxsize=TEXTS)
    def encode(texts: tuple[str, ...]) -> Float[Tensor, "texts features"]:
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return F.normalize(model.get_text_features(input_ids=tokens.input_ids.to(device)).pooler_output, dim=-1)

    @torch.no_grad()
    def classify(images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> NDArray[np.float32]:
        pixels = preprocess_images(processor, images).to(device)
        features = F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        return (model.logit_scale.exp() * features @ encode(tuple(texts)).T).cpu().numpy()

    return classify
