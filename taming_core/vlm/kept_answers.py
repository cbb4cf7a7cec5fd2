"""Answers that are kept on disk by the content of their questions, so that no question is paid for twice."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from taming_core.files import write_json
from taming_core.fingerprints import digest
from taming_core.progress import track
from taming_core.vlm.questions import Chat, Question, answers


@dataclass(frozen=True)
class KeptAnswers:
    """A model and the folder of its answers, which several processes may share; calling it answers a question."""

    chat: Chat
    fingerprint: str  # of the model, and of whatever else its answers depend on
    folder: Path

    @property
    def at_once(self) -> int:
        """How many questions the model is asked at the same time."""
        return self.chat.at_once

    def __call__(self, question: Question) -> str:
        """The answer that is kept, or that of the model, which is kept then."""
        key = self.key(question)
        if (known := self.read(key)) is not None:
            return known
        answer = self.chat(question)
        write_json(self.path(key), {"question": key, "answer": answer})
        return answer

    def ask(self, questions: Sequence[Question], description: str) -> list[str]:
        """The answers in the order of the questions, under a progress bar; equal questions are asked once."""
        keys = [self.key(question) for question in questions]
        different = dict(zip(keys, questions, strict=True))
        found = track(answers(self, list(different.values())), description, len(different))
        known = dict(zip(different, found, strict=True))
        return [known[key] for key in keys]

    def missing(self, questions: Sequence[Question]) -> int:
        """How many different ones of the questions have no answer yet."""
        return sum(self.read(key) is None for key in {self.key(question) for question in questions})

    def key(self, question: Question) -> str:
        """What identifies an answer: the model and the question."""
        return digest([self.fingerprint.encode(), question.content.encode()], 16)

    def read(self, key: str) -> str | None:
        """The answer that is kept of a question; None without one, or where its file is damaged."""
        try:
            entry = json.loads(self.path(key).read_text(encoding="utf-8"))
            return entry["answer"] if entry["question"] == key and isinstance(entry["answer"], str) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def path(self, key: str) -> Path:
        """The file of an answer."""
        return self.folder / key[:2] / f"{key}.json"
