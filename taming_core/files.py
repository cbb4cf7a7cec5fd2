"""Files and folders that are written whole or not at all, and names that any file system takes."""

import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from rich.filesize import decimal
from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage import commit
from taming_core.storage.filesystem import explaining, filesystem, is_file, is_folder, list_objects
from taming_core.storage.paths import AnyPath
from taming_core.storage.reading import read_object

MAX_NAME = 90  # bytes of a file name without its endings: encrypted file systems allow 143, a path of Windows 260
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # names of devices on Windows, whatever their ending
READ_ONLY = ("hf", "http", "https", "github")  # hf: every file would be a commit of a repository
PART = re.compile(r"(\.taming-\d+\.part)+")  # what `part_path` appends; downloads of users end in .001.part
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


def remove(path: AnyPath) -> None:
    """Remove a file or a whole folder, if it is there.

    A local folder loses its name first, so that a crash leaves no half of it that looks like a whole one.
    """
    if not isinstance(path, Path):
        commit.remove_all(path)
    elif path.is_dir() and not path.is_symlink():
        part = part_path(path)
        with suppress(OSError):  # what cannot be renamed may be removed all the same
            path.rename(part)
        for folder in (part, path):
            shutil.rmtree(folder, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def naming(path: AnyPath) -> Generator[None]:
    """Makes errors of the operating system in the block name the path, also where a library drops it."""
    if not isinstance(path, Path):
        with explaining(path):
            yield
        return
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
def replacing(path: AnyPath) -> Generator[Path]:
    """The path of a temporary file that becomes `path` when the block ends; after an error `path` is unchanged.

    In an object store the file is uploaded once, and shows only when it is complete.
    """
    if not isinstance(path, Path):
        with uploaded(path, "file") as part:
            yield part
        return
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
def uploaded(path: UPath, kind: Literal["file", "folder"]) -> Generator[Path]:
    """The path of a local file, or of an empty folder, that is uploaded to `path` when the block ends without error."""
    with tempfile.TemporaryDirectory(prefix="taming-") as folder:
        part = Path(folder, path.name)
        if kind == "folder":
            part.mkdir()
        yield part
        if kind == "folder":
            commit.replace_files(part, path)
        else:
            with explaining(path):
                filesystem(path).put_file(str(part), path.path)


@contextmanager
def replacing_folder(out: AnyPath) -> Generator[Path]:
    """A new empty folder that takes the place of `out` when the block ends; after an error `out` is unchanged.

    In an object store `out` is incomplete while the files are uploaded, and readers say so; see `storage/commit.py`.
    """
    if not isinstance(out, Path):
        with uploaded(out, "folder") as part:
            yield part
        return
    out = out.resolve()  # a link stays one
    part = part_path(out)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with naming(out):
            yield part
            _take_place(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take_place(part: Path, out: Path) -> None:
    """Rename the folder `part` to `out`; what was there goes as a whole, so that a crash leaves no half of it."""
    old = part_path(part)
    if out.is_dir():
        out.rename(old)
    try:
        part.rename(out)
    except OSError:
        if old.is_dir():
            old.rename(out)
        raise
    remove(old)


def replace_folder(made: AnyPath, out: AnyPath) -> None:
    """Move the folder `made` to the place of `out`, as a whole; `made` may be on another disk.

    In an object store the files get names of their own; see `commit.replace_versioned`.
    """
    if not isinstance(out, Path):
        commit.replace_versioned(made, out)
        remove(made)
    else:
        with replacing_folder(out) as part:
            part.rmdir()
            shutil.move(str(made), part)


def require_out(out: AnyPath, inputs: Iterable[AnyPath | None] = ()) -> None:
    """Check before the work that an output can be written, and that writing it destroys no input.

    Args:
        out: the file or folder to write.
        inputs: files and folders that the command reads; None for one that is not used.

    Raises:
        TamingError: `out` is an input, in a folder of inputs or around one, below a file, or may not be written.
    """
    given = [path for path in inputs if path is not None]
    if not isinstance(out, Path):
        return require_remote_out(out, given)
    require_expanded(out)
    place = Path(os.path.realpath(out))
    for path in given:
        if isinstance(path, Path):
            require_apart(out, place, path, Path(os.path.realpath(path)))
    parent = next(folder for folder in place.parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise TamingError(f"{out} cannot be written: {parent} is a file. Name another place with --out.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise TamingError(f"{out} cannot be written: {parent} allows no new files. Name another place with --out.")
    return None


def require_remote_out(out: UPath, inputs: Iterable[AnyPath]) -> None:
    """`require_out` at a URL; whether the store allows to write shows when the output's lock is taken."""
    if out.protocol in READ_ONLY:
        raise TamingError(f"{out} cannot be written: taming only reads from {out.protocol}://. Name another place with "
                          "--out, and upload what is there when it is complete.")  # fmt: skip
    for path in inputs:
        if not isinstance(path, Path) and path.protocol == out.protocol:
            require_apart(out, Path("/", out.path), path, Path("/", path.path))


def require_apart(out: AnyPath, place: Path, given: AnyPath, source: Path) -> None:
    """Raises TamingError if an output's place is that of an input, in it or around it."""
    if place == source or source in place.parents or place in source.parents:
        relation = "is" if place == source else "is in" if source in place.parents else "holds"
        raise TamingError(f"{out} {relation} {given}, which the command reads. Name another place with --out.")


def require_expanded(out: Path) -> None:
    """Raises TamingError if `out` begins with a tilde: shells leave it as it is after an equals sign and in quotes."""
    if str(out).startswith("~"):
        raise TamingError(f"{out} begins with ~, which the shell has not replaced. Write --out {out.expanduser()}.")


def require_out_file(out: AnyPath, example: str, inputs: Iterable[AnyPath | None] = ()) -> None:
    """`require_out` for a file; `example` is a file name for the message.

    Raises:
        TamingError: as `require_out`, or `out` is a folder.
    """
    if is_folder(out):
        raise TamingError(f"{out} is a folder. Name a file with --out, such as {out / example}.")
    require_out(out, inputs)


def require_space(folder: Path, size: int, what: str) -> None:
    """Check that the disk of a folder, which may not exist yet, has `size` bytes left for `what`.

    Raises:
        TamingError: it has not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < size:
        raise TamingError(f"The disk of {folder} has {decimal(free)} free, and {what} takes {decimal(size)}. Free some "
                          "space there, or run the command in a folder on another disk.")  # fmt: skip


def names_in(folder: AnyPath) -> set[str]:
    """The names in a folder that are not hidden; the marker of a store is."""
    if isinstance(folder, Path):
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    names = {name.partition("/")[0] for name in list_objects(folder)}
    return {name for name in names if name != commit.MARKER and not name.startswith(".")}


def require_replaceable(out: AnyPath, is_ours: Callable[[Any], bool], what: str) -> None:
    """Refuse to replace a folder that a command did not write.

    Args:
        out: the output folder; absent and empty ones are fine.
        is_ours: whether a folder with something in it is what the command writes.
        what: what that is, for the message.

    Raises:
        TamingError: `out` is a file, or holds something else.
    """
    if isinstance(out, Path):
        wrong = out.exists() and (not out.is_dir() or (any(out.iterdir()) and not is_ours(out)))
    else:
        wrong = bool(names_in(out)) and not commit.is_being_replaced(out) and not is_ours(out)
    if wrong:
        raise TamingError(f"{out} holds something else than {what}. Name a folder of its own with --out.")


def is_complete(folder: AnyPath, file: str) -> bool:
    """Whether a folder holds a file of this name, and in a store was not left when half of it was replaced."""
    if not isinstance(folder, Path) and commit.is_being_replaced(folder):
        return False
    return is_file(folder / file)


def write_text(path: AnyPath, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: AnyPath, value: Any) -> None:
    """Write a JSON file, indented and in UTF-8, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_text(path: AnyPath) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        TamingError: the file is in another encoding; the message names the line.
    """
    data = path.read_bytes() if isinstance(path, Path) else read_object(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TamingError(f"{path} is not text in UTF-8: line {line} has a byte of another encoding. Save it again as "
                          "UTF-8, which every editor can.") from error  # fmt: skip


def read_json(path: AnyPath) -> Any:
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
