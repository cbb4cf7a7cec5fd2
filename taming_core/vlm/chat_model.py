"""Answers about pictures from an image-text-to-text model of transformers, on this machine."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from taming_core.errors import TamingError
from taming_core.fingerprints import digest
from taming_core.vlm.questions import Question
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars
from taming_core.weights.locate import source_of

WHAT = "image-text-to-text model"


@dataclass(frozen=True)
class ChatModel:
    """A model with its processor; calling it answers a question.

    One at a time: padding is not the same in all models, and would let an answer depend on the other pictures.
    """

    model: Any
    processor: Any
    num_beams: int
    max_new_tokens: int

    @property
    def at_once(self) -> int:
        """A single question."""
        return 1

    def __call__(self, question: Question) -> str:
        """The answer, by beam search without sampling."""
        content = [{"type": "image", "image": image} for image in question.shown]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": question.prompt}]}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        ).to(self.model.device, self.model.dtype)  # fmt: skip
        tokens = self.model.generate(
            **inputs, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens, do_sample=False
        )
        return self.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def fingerprint(self) -> str:
        """16 hex digits of the weights, of the words around a prompt, and of how an answer is decoded."""
        settings = [self.num_beams, self.max_new_tokens, self.processor.chat_template]
        return digest([json.dumps(settings).encode(), *self._weights()])

    def _weights(self) -> Iterator[bytes]:
        for name, tensor in sorted(self.model.state_dict().items()):
            yield name.encode()
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def load_chat_model(spec: str, device: str, key: str, *, num_beams: int, max_new_tokens: int) -> ChatModel:
    """A model that answers questions; in bfloat16 on a GPU, else in float32.

    Args:
        spec: the folder or the hub name of a model that AutoModelForImageTextToText opens.
        device: where it runs.
        key: of the params, that names it.
        num_beams: of the beam search without sampling; 1 is greedy.
        max_new_tokens: of an answer.

    Raises:
        TamingError: there is no such model, or it has no chat template.
    """
    source = source_of(spec, Path(spec))
    model = load_network(AutoModelForImageTextToText, source, WHAT, key)
    with no_progress_bars(), as_taming_error(source, WHAT, key):
        processor = cast(Any, AutoProcessor).from_pretrained(source)
    if getattr(processor, "chat_template", None) is None:
        raise TamingError(f"{spec} has no chat template, so it cannot be asked. Set {key} to a model that was tuned on "
                          "instructions.")  # fmt: skip
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    return ChatModel(model.to(device, dtype), processor, num_beams, max_new_tokens)
