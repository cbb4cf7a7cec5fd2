"""Files and folders that are written whole or not at all, and names that any file system takes."""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError

MAX_NAME = 90  # bytes of a file name without its endings: encrypted file systems allow 143, a path of Windows 260
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # names of devices on Windows, whatever their ending


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


def safe_name(text: str, limit: int = MAX_NAME) -> str:
    """The text as a file name without its ending: lower-case letters of ASCII, digits and hyphens.

    A text that has other letters, is too long, or is a reserved name ends in a hash of it. Names of different texts
    can be equal otherwise; see `distinct_names`.

    >>> safe_name("a photo of <object> on the beach")
    'a-photo-of-object-on-the-beach'
    >>> safe_name("Crème brûlée"), safe_name("樱桃"), safe_name("con")
    ('creme-brulee-4066040754', '62a1a02f35', 'con-cb66561fa5')

    Args:
        text: any.
        limit: of the name's length, in characters, which are bytes.
    """
    letters = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in letters.lower()).split())
    if words and text.isascii() and len(words) <= limit and not RESERVED.fullmatch(words):
        return words
    return with_hash(words, text, limit)


def with_hash(name: str, text: str, limit: int = MAX_NAME) -> str:
    """A safe name, cut to the limit, with ten hex digits of the hash of `text` at its end."""
    # Names of files that are not UTF-8 hold surrogates.
    tag = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    kept = name[: limit - len(tag) - 1].strip("-")
    return f"{kept}-{tag}" if kept else tag


def distinct_names(names: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The names, each with the hash of its text where it would stand for different texts.

    >>> distinct_names(["a", "a", "b"], ["A", "a!", "b"])
    ['a-b685b2f862', 'a-a266cd85c7', 'b']
    """
    known = dict[str, set[str]]()
    for name, text in zip(names, texts, strict=True):
        known.setdefault(name, set()).add(text)
    return [with_hash(n, t) if len(known[n]) > 1 else n for n, t in zip(names, texts, strict=True)]
