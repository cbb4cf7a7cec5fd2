"""Photos to captions with BLIP (Li et al., 2022): unconditional, or going on from the words it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoProcessor, BlipForConditionalGeneration, PreTrainedModel

from taming_core.weights.load import as_taming_error, load_network, no_progress_bars
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI

Captioner = Callable[[Sequence[NDArray[np.uint8]], str], list[str]]


@dataclass(frozen=True)
class BlipCaptioner:
    """A BLIP decoder with its settings; calling it describes photos."""

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
        prompt = prompt_ids(self.processor.tokenizer, prefix, self.model.config.text_config)
        images = preprocess(self.processor, photos).to(self.model.device)
        # `generate` writes into its prompt and drops the last token of it, so every call gets a fresh one
        prompts = cast(torch.LongTensor, prompt.repeat(len(photos), 1).to(self.model.device))
        tokens = self.model.generate(
            images,
            prompts,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )
        return [self._wording(row, prompt[0, 1:-1], prefix) for row in tokens[:, 1:]]

    def _wording(self, tokens: Int[Tensor, " said"], given: Int[Tensor, " given"], prefix: str) -> str:
        """The decoded caption with the tokens of the prompt replaced by its words, some of which may be unknown."""
        whole, start = (self.processor.tokenizer.decode(t, skip_special_tokens=True) for t in (tokens, given))
        return tidy(prefix + whole[len(start) :] if prefix else whole)


def load_captioner(spec: str, device: str, *, num_beams: int, max_new_tokens: int) -> Captioner:
    """A callable from photos (H, W, 3) uint8 and the words to start with ("" for none) to their captions.

    `spec` is `mini`, the folder of a `BlipForConditionalGeneration`, or a hub name. `num_beams` 1 is greedy; nothing
    is sampled. Raises TamingError if there is no such model, or it is no captioner.
    """
    model, processor = load_blip(spec, "captioner", BlipForConditionalGeneration, device)
    return BlipCaptioner(model, processor, num_beams, max_new_tokens)


def load_blip(spec: str, role: str, kind: type[PreTrainedModel], device: str) -> tuple[Any, Any]:
    """The float32 model of `spec` and its processor; `mini` is the shipped `role`."""
    source, what, key = source_of(spec, MINI / role), f"BLIP {role}", f"caption.{role}"
    model = load_network(kind, source, what, key)
    with no_progress_bars(), as_taming_error(source, what, key):
        processor = AutoProcessor.from_pretrained(source)
    return model.to(device), processor


def preprocess(processor: Any, photos: Sequence[NDArray[np.uint8]]) -> Float[Tensor, "n 3 height width"]:
    """Photos (H, W, 3) of any sizes as the model wants them."""
    own = [np.array(photo) for photo in photos]  # a copy: the processor warns of arrays it may not write to
    made = processor.image_processor(images=own, input_data_format="channels_last", return_tensors="pt")
    return made["pixel_values"]


def prompt_ids(tokenizer: Any, prefix: str, config: Any) -> Int[Tensor, "1 length"]:
    """What the decoder starts from: the opening token, the prefix, and the closing token that `generate` drops."""
    given = tokenizer.encode(prefix, add_special_tokens=False)
    return torch.tensor([[config.bos_token_id, *given, config.sep_token_id]])


def tidy(text: str) -> str:
    """Lower case, single spaces, none before a comma or full stop.

    >>> tidy("A small dog on the beach , on the left .")
    'a small dog on the beach, on the left.'
    """
    return " ".join(text.lower().split()).replace(" ,", ",").replace(" .", ".")
