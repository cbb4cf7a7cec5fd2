"""A model of transformers on this machine sees every picture of a question, in their order."""

from pathlib import Path

import pytest
import tiny_vlm
import torch
from PIL import Image

from taming_core.vlm.chat_model import ChatModel, load_chat_model
from taming_core.vlm.questions import Question, answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.write(tmp_path_factory.mktemp("vlm"))


def load(folder: Path, length: int = 8) -> ChatModel:
    return load_chat_model(str(folder), "cpu", "a.key", num_beams=1, max_new_tokens=length)


def asked(*colours: str, prompt: str = "a photo of a dog") -> Question:
    return Question(tuple(Image.new("RGB", (40, 30), colour) for colour in colours), prompt, 64)


def test_pictures_their_order_and_the_prompt_count(folder: Path) -> None:
    chat = load(folder)
    questions = [asked("red", "blue"), asked("blue", "red"), asked("red"), asked("red", "blue", prompt="a cat")]
    found = list(answers(chat, questions))
    assert len(set(found)) == 4
    assert found == [chat(question) for question in questions]


def test_its_fingerprint_changes_with_any_weight_and_the_length(folder: Path) -> None:
    chat = load(folder)
    assert chat.fingerprint() == load(folder).fingerprint() != load(folder, 9).fingerprint()
    before = chat.fingerprint()
    with torch.no_grad():
        list(chat.model.parameters())[-1].view(-1)[-1] += 1
    assert chat.fingerprint() != before
