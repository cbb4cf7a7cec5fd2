"""Questions about pictures, and models that answer them."""

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

from PIL import Image

from taming_core.fingerprints import digest

THOUGHTS = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)  # of an answer


@dataclass(frozen=True)
class Question:
    """A prompt about pictures, of which the model gets `shown`."""

    images: tuple[Image.Image, ...]
    prompt: str
    max_side: int  # pixels of a picture's longer side

    @property
    def shown(self) -> list[Image.Image]:
        """The pictures, RGB, with no side longer than `max_side`."""
        return [shrink(image.convert("RGB"), self.max_side) for image in self.images]

    @cached_property
    def content(self) -> str:
        """What identifies the question, in 32 hex digits: the prompt, and sizes and pixels of the pictures."""
        head = json.dumps([self.prompt, self.max_side, [image.size for image in self.images]]).encode()
        return digest([head, *(image.convert("RGB").tobytes() for image in self.images)], 16)


@runtime_checkable
class Chat(Protocol):
    """A vision-language model; calling it answers a question, without sampling."""

    @property
    def at_once(self) -> int:
        """How many questions it is asked at the same time, each by a thread; 1 for none but the caller's."""
        ...

    def __call__(self, question: Question) -> str:
        """The answer; "" for none, as a refusal is."""
        ...


def answers(chat: Chat, questions: Sequence[Question]) -> Iterator[str]:
    """The answers in the order of the questions; after an error no further question is asked."""
    if chat.at_once == 1:
        yield from map(chat, questions)
        return
    with ThreadPoolExecutor(chat.at_once) as pool:
        pending = [pool.submit(chat, question) for question in questions]
        try:
            for future in pending:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The image with no side longer than `side` pixels."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy
