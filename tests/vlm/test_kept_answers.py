"""Answers are kept by what was asked, whoever asks and however often; what is damaged is asked again."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taming_core.vlm.kept_answers import KeptAnswers
from taming_core.vlm.questions import Question, answers


@dataclass
class Counting:
    """A model that answers with the prompt, and notes what it was asked."""

    at_once: int = 4
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[str], object] = str

    def __call__(self, question: Question) -> str:
        self.asked.append(question.prompt)
        self.meanwhile(question.prompt)
        return f"answer to {question.prompt}"


def question(prompt: str = "?", grey: int = 0, side: int = 64, size: tuple[int, int] = (8, 6)) -> Question:
    return Question((Image.new("RGB", size, (grey, grey, grey)), Image.new("L", (4, 4), 9)), prompt, side)


def test_a_question_is_asked_once_by_whoever_asks(tmp_path: Path) -> None:
    chat = Counting()
    asked = [question("a"), question("b"), question("a"), question("b", grey=1)]
    expected = ["answer to a", "answer to b", "answer to a", "answer to b"]
    assert KeptAnswers(chat, "x", tmp_path).ask(asked, "ask") == expected
    assert sorted(chat.asked) == ["a", "b", "b"]
    later = KeptAnswers(chat, "x", tmp_path)
    assert later.missing([*asked, question("c"), question("c")]) == 1
    assert later.ask(asked[::-1], "ask") == expected[::-1]
    assert len(chat.asked) == 3


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_the_order_is_that_of_the_questions(tmp_path: Path, at_once: int) -> None:
    first_waits = threading.Event()

    def meanwhile(prompt: str) -> None:
        if at_once > 1 and prompt == "0":
            first_waits.wait(9)
        elif prompt == "1":
            first_waits.set()

    asked = [question(str(n)) for n in range(9)]
    chat = Counting(at_once, meanwhile=meanwhile)
    assert KeptAnswers(chat, "x", tmp_path).ask(asked, "ask") == [f"answer to {n}" for n in range(9)]


def test_everything_that_an_answer_depends_on_is_in_its_name(tmp_path: Path) -> None:
    here, there = (KeptAnswers(Counting(), name, tmp_path) for name in ("x", "y"))
    swapped = Question(question().images[::-1], "?", 64)
    asked = [question(), question("!"), question(grey=1), question(side=63), question(size=(6, 8)), swapped]
    assert len({there.key(question()), *map(here.key, asked)}) == 7
    assert here.key(question()) == here.key(question())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b'{"answer": "no"}', b"\xff",
                                     b'{"question": KEY}', b'{"question": KEY, "answer": 3}',
                                     b'{"question": "z", "answer": "a"}'])  # fmt: skip
def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, content: bytes) -> None:
    kept = KeptAnswers(Counting(), "x", tmp_path)
    path = kept.path(kept.key(question()))
    path.parent.mkdir()
    path.write_bytes(content.replace(b"KEY", f'"{path.stem}"'.encode()))
    assert kept.missing([question()]) == 1
    assert kept(question()) == "answer to ?"
    assert kept.missing([question()]) == 0
    assert list(tmp_path.rglob("*.part")) == []


def test_after_an_error_what_was_answered_is_kept_and_nothing_else_asked(tmp_path: Path) -> None:
    def meanwhile(prompt: str) -> None:
        if prompt == "2":
            raise RuntimeError(prompt)

    chat = Counting(1, meanwhile=meanwhile)
    asked = [question(str(n)) for n in range(4)]
    with pytest.raises(RuntimeError):
        KeptAnswers(chat, "x", tmp_path).ask(asked, "ask")
    assert chat.asked == ["0", "1", "2"]
    assert KeptAnswers(chat, "x", tmp_path).missing(asked) == 2


def test_an_error_ends_the_questions_of_all_threads() -> None:
    def meanwhile(prompt: str) -> None:
        raise RuntimeError(prompt)

    chat = Counting(2, meanwhile=meanwhile)
    with pytest.raises(RuntimeError):
        list(answers(chat, [question(str(n)) for n in range(200)]))
    assert len(chat.asked) < 200


ASK_ALL = """
import sys
from pathlib import Path
from test_kept_answers import Counting, KeptAnswers, question
KeptAnswers(Counting(8), "x", Path(sys.argv[1])).ask([question(str(n)) for n in range(60)], "ask")
"""


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    command, path = [sys.executable, "-c", ASK_ALL, str(tmp_path)], [str(Path(__file__).parent), *sys.path]
    both = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)}) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert KeptAnswers(Counting(), "x", tmp_path).missing([question(str(n)) for n in range(60)]) == 0
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 60


def test_what_is_shown_is_rgb_and_bounded() -> None:
    large = Image.fromarray(np.zeros((30, 60), np.uint8))
    assert [(i.mode, i.size) for i in Question((large, large.resize((3, 2))), "?", 20).shown] == [
        ("RGB", (20, 10)), ("RGB", (3, 2)),
    ]  # fmt: skip
