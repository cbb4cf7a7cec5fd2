"""Captions by a vision-language model that is asked to describe all but the object, and to write `<object>` for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.language.placeholder import OBJECT
from taming_core.params.caption import VlmParams
from taming_core.vlm.questions import THOUGHTS, Chat, Question, answers

UNKNOWN = "main subject"  # the class of an object without one, in a prompt
PLACEHOLDER = re.compile(r"[`*\"'“”]*(?:<|&lt;)\s*object\s*(?:>|&gt;)[`*\"'“”]*", re.IGNORECASE)


@dataclass(frozen=True)
class PromptedCaptioner:
    """A vision-language model and its prompts; calling it captions photos."""

    chat: Chat
    p: VlmParams

    def __call__(self, photos: Sequence[NDArray[np.uint8]], prefix: str = "") -> list[str]:
        """One caption per photo (H, W, 3), RGB; the model is asked to start with `prefix`."""
        prompt = f'{self.p.photo_prompt} Start with "{prefix}".' if prefix else self.p.photo_prompt
        return self._answers(photos, [prompt] * len(photos))

    def ask(self, photos: Sequence[NDArray[np.uint8]], nouns: Sequence[str | None]) -> list[str]:
        """One caption per photo (H, W, 3), RGB, with `<object>` for an object of its class, if the model obeys."""
        return self._answers(photos, [self.p.prompt.replace("{class}", noun or UNKNOWN) for noun in nouns])

    def _answers(self, photos: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[str]:
        pairs = zip(photos, prompts, strict=True)
        questions = [Question((Image.fromarray(photo),), prompt, self.p.max_side) for photo, prompt in pairs]
        return [tidy_answer(answer) for answer in answers(self.chat, questions)]


def tidy_answer(text: str) -> str:
    """The answer in one line, without thoughts and quotes, with `<object>` as it is spelled here.

    >>> tidy_answer('<think>A dog.</think> "A `<Object>`\\n on the beach."')
    'A <object> on the beach.'
    """
    return " ".join(PLACEHOLDER.sub(OBJECT, THOUGHTS.sub("", text)).split()).strip("\"'“” ")
