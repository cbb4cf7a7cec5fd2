"""Prompts as people write them: files of prompts, and which object each `<object>` stands for."""

import re
from collections.abc import Sequence
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT

PLACEHOLDER = re.compile(r"<object(?::(\d+))?>")  # <object:2> is the second object


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file in UTF-8, one a line; empty lines and lines that start with # are none.

    Raises:
        TamingError: the file cannot be read, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # other separators are letters of a prompt
    except OSError as error:
        raise TamingError(f"{path} cannot be read: {error.strerror}. Name a file of prompts, one a line.") from error
    except UnicodeDecodeError as error:
        raise TamingError(f"{path} is no text in UTF-8. Save it as UTF-8, one prompt a line.") from error
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not prompts:
        raise TamingError(f"{path} holds no prompt. Write one a line, such as 'a photo of {OBJECT} on the beach'.")
    return prompts


def place_objects(prompt: str, objects: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """The prompt with `<object>` for each object, and which of the objects stands at each, counted from 0.

    >>> place_objects("a <object> and a <object>", ["a cat", "a dog"])
    ('a <object> and a <object>', (0, 1))
    >>> place_objects("a <object:2> and a <object:1>", ["a cat", "a dog"])
    ('a <object> and a <object>', (1, 0))

    Args:
        prompt: with `<object>` in the order of the objects, or with their numbers, as in `<object:2>`.
        objects: what messages call them.

    Raises:
        TamingError: an object has no place in the prompt, or several; or the prompt names another object.
    """
    written = PLACEHOLDER.findall(prompt)
    if not written:
        raise TamingError(
            f"The prompt '{shorten(prompt)}' does not say where the object goes. "
            f"Write {OBJECT} in it, such as 'a photo of {OBJECT} on the beach'."
        )
    numbers = [int(number) for number in written if number] or list(range(1, len(written) + 1))
    if fault := _fault(numbers, len(written), objects):
        raise TamingError(f"The prompt '{shorten(prompt)}' {fault}. {_advice(len(objects))}")
    return PLACEHOLDER.sub(OBJECT, prompt), tuple(number - 1 for number in numbers)


def _fault(numbers: Sequence[int], written: int, objects: Sequence[str]) -> str | None:
    """What is wrong with the objects' numbers in a prompt, as the end of a sentence."""
    count = len(objects)
    if len(numbers) < written:
        return f"numbers {len(numbers)} of its {written} {OBJECT}, and not the others"
    if extra := [number for number in numbers if not 1 <= number <= count]:
        return f"holds {OBJECT} number {extra[0]}, and its image shows {count} object{'s' if count > 1 else ''}"
    if missing := [name for i, name in enumerate(objects, 1) if i not in numbers]:
        return f"does not say where each of the {count} objects goes: it has no {OBJECT} for {', '.join(missing)}"
    if len(numbers) > count:
        return f"holds object {max(numbers, key=numbers.count)} more than once"
    return None


def _advice(objects: int) -> str:
    if objects == 1:
        return f"Write {OBJECT} once, or add --together to draw all objects in one image."
    return f"Write {OBJECT} {objects} times, in the order of --object or with numbers, as in <object:2>."


def shorten(text: str, length: int = 120) -> str:
    """The text on one line, or the words at its start and at its end.

    >>> shorten("from the very start to the very end", 24)
    'from the ... very end'
    """
    line, half = " ".join(text.split()), (length - 5) // 2
    return line if len(line) <= length else f"{line[:half].rsplit(' ', 1)[0]} ... {line[-half:].split(' ', 1)[-1]}"
