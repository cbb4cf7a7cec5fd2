"""Scores how well a caption matches a photo: BLIP's image-text matching head (Li et al., 2022, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from taming_core.captions.captioner import load_blip, preprocess
from taming_core.captions.drafts import Matcher


@dataclass(frozen=True)
class BlipMatcher:
    """A BLIP matching model; calling it scores pairs of photo and caption."""

    model: BlipForImageTextRetrieval
    processor: Any  # transformers' BlipProcessor, whose parts are untyped

    @torch.no_grad()
    def __call__(self, photos: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities (n,) in [0, 1] that photo i (H, W, 3), RGB, and caption i match.

        Up to rounding a probability does not depend on the other pairs. Raises ValueError if the lengths differ.
        """
        if len(photos) != len(captions):
            raise ValueError(f"{len(photos)} photos and {len(captions)} captions")
        if not photos:
            return np.zeros(0, np.float32)
        text = self.processor.tokenizer(
            list(captions), padding=True, padding_side="right", truncation=True, return_tensors="pt"
        ).to(self.model.device)
        images = preprocess(self.processor, photos).to(self.model.device)
        scores = match_scores(self.model, images, text["input_ids"], text["attention_mask"])
        return scores.softmax(-1)[:, 1].cpu().numpy()


def load_matcher(spec: str, device: str) -> Matcher:
    """A callable from photos (H, W, 3) uint8 and as many captions to the probabilities that they match.

    `spec` is `mini`, the folder of a `BlipForImageTextRetrieval`, or a hub name.

    Raises:
        TamingError: there is no such model, or it is not a matcher.
    """
    model, processor = load_blip(spec, "matcher", BlipForImageTextRetrieval, device)
    return BlipMatcher(model, processor)


def match_scores(
    model: BlipForImageTextRetrieval, images: Float[Tensor, "n 3 height width"], tokens: Tensor, mask: Tensor
) -> Float[Tensor, "n 2"]:
    """Logits of "no match" and "match". The model's `forward` is not used: it creates its image mask on the CPU."""
    return token_scores(model, model.vision_model(pixel_values=images).last_hidden_state, tokens, mask)[:, 0]


def token_scores(
    model: BlipForImageTextRetrieval, image_features: Float[Tensor, "n patches width"], tokens: Tensor, mask: Tensor
) -> Float[Tensor, "n length 2"]:
    """The head's logits at every token, from the image features; the first token is that of the whole caption."""
    image_mask = torch.ones(image_features.shape[:2], dtype=torch.long, device=image_features.device)
    text = model.text_encoder(
        input_ids=tokens,
        attention_mask=mask,
        encoder_hidden_states=image_features,
        encoder_attention_mask=image_mask,
    )
    return model.itm_head(text.last_hidden_state)
