"""Captioning photos with BLIP (Li et al., 2022), unconditional or continuing a prefix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoProcessor, BlipForConditionalGeneration, PreTrainedModel

from taming_core.captions.drafts import Captioner
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars, preprocess_images
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI


@dataclass(frozen=True)
class BlipCaptioner:
    """A BLIP captioning model with its settings; calling it captions photos."""

    model: BlipForConditionalGeneration
    processor: Any  # transformers' BlipProcessor, whose parts are untyped
    num_beams: int
    max_new_tokens: int

    def __call__(self, photos: Sequence[NDArray[np.uint8]], prefix: str = "") -> list[str]:
        """One lower-case caption per photo (H, W, 3), RGB; each starts with `prefix`, word for word.

        A caption does not depend on the other photos of the call.
        """
        if not photos:
            return []
        model: Any = self.model  # partly untyped
        prompt = prompt_ids(self.processor.tokenizer, prefix, model.config.text_config)
        images = preprocess(self.processor, photos).to(model.device)
        # `generate` modifies its prompt and drops the last token of it, so every call gets a new one
        prompts = prompt.repeat(len(photos), 1).to(model.device)
        tokens: Tensor = model.generate(
            images,
            prompts,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )
        return [self._decode(row, prompt[0, 1:-1], prefix) for row in tokens[:, 1:]]

    def _decode(self, tokens: Int[Tensor, " length"], prompt: Int[Tensor, " prompt"], prefix: str) -> str:
        """The decoded caption; its start is replaced by `prefix`, which may contain words unknown to the tokenizer."""
        text, start = (self.processor.tokenizer.decode(t, skip_special_tokens=True) for t in (tokens, prompt))
        return tidy(prefix + text[len(start) :] if prefix else text)


def load_captioner(spec: str, device: str, *, num_beams: int, max_new_tokens: int) -> Captioner:
    """A callable from photos (H, W, 3) uint8 and a prefix ("" for none) to their captions.

    `spec` is `mini`, the folder of a `BlipForConditionalGeneration`, or a hub name. Decoding is beam search without
    sampling; `num_beams` 1 is greedy.

    Raises:
        TamingError: there is no such model, or it is not a captioner.
    """
    model, processor = load_blip(spec, "captioner", BlipForConditionalGeneration, device)
    return BlipCaptioner(model, processor, num_beams, max_new_tokens)


def load_blip(spec: str, role: str, kind: type[PreTrainedModel], device: str) -> tuple[Any, Any]:
    """The float32 model of `spec` and its processor; `mini` is the packaged model for `role`."""
    source, what, key = source_of(spec, MINI / role), f"BLIP {role}", f"caption.{role}"
    model = load_network(kind, source, what, key)
    with no_progress_bars(), as_taming_error(source, what, key):
        kind_of_processor: Any = AutoProcessor
        processor = kind_of_processor.from_pretrained(source)
    return model.to(device), processor


def preprocess(processor: Any, photos: Sequence[NDArray[np.uint8]]) -> Float[Tensor, "n 3 height width"]:
    """Photos (H, W, 3) of any sizes, resized and normalized for the model."""
    return preprocess_images(processor.image_processor, photos)


def prompt_ids(tokenizer: Any, prefix: str, config: Any) -> Int[Tensor, "1 length"]:
    """The decoder's prompt: start token, prefix, and an end token that `generate` drops."""
    tokens = tokenizer.encode(prefix, add_special_tokens=False)
    return torch.tensor([[config.bos_token_id, *tokens, config.sep_token_id]])


def tidy(text: str) -> str:
    """Lower case, single spaces, none before a comma or full stop.

    >>> tidy("A small dog on the beach , on the left .")
    'a small dog on the beach, on the left.'
    """
    return " ".join(text.lower().split()).replace(" ,", ",").replace(" .", ".")
