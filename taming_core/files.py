"""Files and folders that are written whole or not at all, and names that any file system takes."""

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError

MAX_NAME = 90  # bytes of a file name without its endings: encrypted file systems allow 143, a path of Windows 260
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # names of devices on Windows, whatever their ending
PART = re.compile(r"\.taming-\d+\.part")  # what `part_path` appends; downloads of users end in .001.part
RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # how Rust's io::Error, of safetensors and tokenizers, gives errno


def part_path(path: Path) -> Path:
    """Where this process writes a file or folder before it takes its name."""
    return path.with_name(f"{path.name}.taming-{os.getpid()}.part")


def remove_parts(path: Path, nested: bool = True) -> None:
    """Remove what crashed processes left of `path` and of what is in it; no other process may be writing them.

    Args:
        path: a file or folder.
        nested: also of what is in its folders.
    """
    siblings = (p for p in path.parent.glob("*.part") if PART.fullmatch(p.name.removeprefix(path.name)))
    inside = path.rglob("*.part") if nested else path.glob("*.part")
    for part in [*siblings, *(p for p in inside if PART.search(p.name))]:
        remove(part)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Makes errors of the operating system in the block name the path, also where a library drops it."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
    except Exception as error:
        if number := RUST_ERROR.search(str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """The path of a temporary file that becomes `path` when the block ends; after an error `path` is unchanged."""
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        with naming(path):
            yield part
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(out: Path) -> Generator[Path]:
    """A new empty folder that takes the place of `out` when the block ends; after an error `out` is unchanged."""
    out = out.resolve()  # a link stays one
    part = part_path(out)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with naming(out):
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


def require_out(out: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Check before the work that an output can be written, and that writing it destroys no input.

    Args:
        out: the file or folder to write.
        inputs: files and folders that the command reads; None for one that is not used.

    Raises:
        TamingError: `out` is an input, in a folder of inputs or around one, below a file, or may not be written.
    """
    require_expanded(out)
    place = Path(os.path.realpath(out))
    for given in (path for path in inputs if path is not None):
        source = Path(os.path.realpath(given))
        if place == source or source in place.parents or place in source.parents:
            relation = "is" if place == source else "is in" if source in place.parents else "holds"
            raise TamingError(f"{out} {relation} {given}, which the command reads. Name another place with --out.")
    parent = next(folder for folder in place.parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise TamingError(f"{out} cannot be written: {parent} is a file. Name another place with --out.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise TamingError(f"{out} cannot be written: {parent} allows no new files. Name another place with --out.")


def require_expanded(out: Path) -> None:
    """Raises TamingError if `out` begins with a tilde: shells leave it as it is after an equals sign and in quotes."""
    if str(out).startswith("~"):
        raise TamingError(f"{out} begins with ~, which the shell has not replaced. Write --out {out.expanduser()}.")


def require_out_file(out: Path, example: str, inputs: Iterable[Path | None] = ()) -> None:
    """`require_out` for a file; `example` is a file name for the message.

    Raises:
        TamingError: as `require_out`, or `out` is a folder.
    """
    if out.is_dir():
        raise TamingError(f"{out} is a folder. Name a file with --out, such as {out / example}.")
    require_out(out, inputs)


def require_space(folder: Path, size: int, what: str) -> None:
    """Check that the disk of a folder, which may not exist yet, has `size` bytes left for `what`.

    Raises:
        TamingError: it has not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < size:
        raise TamingError(f"The disk of {folder} has {free / 1e9:.2f} GB free, and {what} takes {size / 1e9:.2f} GB. "
                          "Free some space, or run the command in a folder on another disk.")  # fmt: skip


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


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        TamingError: the file is in another encoding; the message names the line.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TamingError(f"{path} is not text in UTF-8: line {line} has a byte of another encoding. Save it again as "
                          "UTF-8, which every editor can.") from error  # fmt: skip


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        TamingError: the file is not JSON in UTF-8.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise TamingError(f"{path} is not JSON: {error}. Correct it, or get the file again.") from error


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
