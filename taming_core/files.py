"""Files and folders that are written whole or not at all, and names that any file system takes."""

import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError


def part_path(path: Path) -> Path:
    """Where a file or folder is written before it takes its name."""
    return path.with_name(f"{path.name}.part")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """The path of a temporary file that becomes `path` when the block ends; after an error `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(out: Path) -> Generator[Path]:
    """A new empty folder that takes the place of `out` when the block ends; after an error `out` is unchanged."""
    part = part_path(out)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(made: Path, out: Path) -> None:
    """Move the folder `made` to the place of `out`, as a whole; `made` may be on another disk."""
    with replacing_folder(out) as part:
        part.rmdir()
        shutil.move(made, part)


def require_replaceable(out: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Refuse to replace a folder that a command did not write.

    Args:
        out: the output folder; absent and empty ones are fine.
        is_ours: whether a folder with something in it is what the command writes.
        what: what that is, for the message.

    Raises:
        TamingError: `out` is a file, or holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not is_ours(out))):
        raise TamingError(f"{out} holds something else than {what}. Name a folder of its own with --out.")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented and in UTF-8, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def slug(text: str) -> str:
    """The text in letters, digits and hyphens.

    >>> slug("a photo of <object> on the beach")
    'a-photo-of-object-on-the-beach'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
