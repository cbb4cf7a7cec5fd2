"""Answers about photos from an image-text-to-text model of transformers, on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from taming_core.captions.prompted import Complete
from taming_core.errors import TamingError
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars
from taming_core.weights.locate import source_of

KEY, WHAT = "caption.captioner", "image-text-to-text model"


@dataclass(frozen=True)
class ChatModel:
    """A model with its processor; calling it answers prompts about photos."""

    model: Any
    processor: Any
    num_beams: int
    max_new_tokens: int

    def __call__(self, photos: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One answer per photo and prompt.

        One at a time: padding is not the same in all models, and would let an answer depend on the other photos.
        """
        return [self._answer(photo, prompt) for photo, prompt in zip(photos, prompts, strict=True)]

    def _answer(self, photo: Image.Image, prompt: str) -> str:
        content = [{"type": "image", "image": photo}, {"type": "text", "text": prompt}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        ).to(self.model.device, self.model.dtype)  # fmt: skip
        tokens = self.model.generate(
            **inputs, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens, do_sample=False
        )
        return self.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def load_chat_model(spec: str, device: str, *, num_beams: int, max_new_tokens: int) -> Complete:
    """A callable from photos and as many prompts to answers; in bfloat16 on a GPU, else in float32.

    `spec` is the folder or the hub name of a model that AutoModelForImageTextToText opens. Decoding is beam search
    without sampling; `num_beams` 1 is greedy.

    Raises:
        TamingError: there is no such model, or it has no chat template.
    """
    source = source_of(spec, Path(spec))
    model = load_network(AutoModelForImageTextToText, source, WHAT, KEY)
    with no_progress_bars(), as_taming_error(source, WHAT, KEY):
        processor = cast(Any, AutoProcessor).from_pretrained(source)
    if getattr(processor, "chat_template", None) is None:
        raise TamingError(f"{spec} has no chat template, so it cannot be asked. Set {KEY} to a model that was tuned on "
                          "instructions.")  # fmt: skip
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    return ChatModel(model.to(device, dtype), processor, num_beams, max_new_tokens)
