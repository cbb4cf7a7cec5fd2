"""The photo files of a folder: which there are, what they are called, and which are copies."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.fingerprints import hash_of

NOTES = ("metadata", "readme", "license", "licence", "notice", "copying")


def list_photos(folder: Path) -> list[Path]:
    """Every file below `folder` in order of its name, whether it is a picture or not.

    Left out are what people keep beside their photos: metadata.*, hidden files, and notes (*.md, LICENSE, README).

    Raises:
        TamingError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise TamingError(f"{folder} is not a folder. Put photos there, or name the folder that holds them.")
    found = sorted(p for p in files_below(folder) if p.stem.lower() not in NOTES and p.suffix.lower() != ".md")
    if not found:
        raise TamingError(f"{folder} holds no photos. Put some there, a sub-folder for each thing that they show.")
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """All files below `folder` that are not hidden; linked folders are followed."""
    for parent, names, files in os.walk(folder, followlinks=True):
        names[:] = [n for n in names if not n.startswith(".")]
        yield from (Path(parent, n) for n in files if not n.startswith("."))


def folder_state(folder: Path) -> str:
    """16 hex digits that change when a file below `folder` is added, removed or written (name, size, time)."""
    digest = blake2b(digest_size=8)
    for path in sorted(files_below(folder)):
        about = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
        digest.update(f"{file_name(path, folder)}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def file_name(path: Path, folder: Path) -> str:
    """The photo's name in every table: its path below the raw folder, with forward slashes."""
    return path.relative_to(folder).as_posix()


def folder_identity(name: str) -> str | None:
    """The first folder of a file name; None for a photo that lies in no sub-folder.

    >>> folder_identity("my-dog/garden/1.jpg")
    'my-dog'
    """
    return name.split("/")[0] if "/" in name else None


def copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Each file that has the same bytes as an earlier one, with that earlier one; only files of one size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].append(path)
    first: dict[str, Path] = {}
    same = [p for group in by_size.values() if len(group) > 1 for p in group]
    return {p: original for p in same if (original := first.setdefault(hash_of(p.read_bytes()), p)) != p}


def photo_id_of(path: Path) -> str:
    """The `hash_of` a photo file; of nothing where the file cannot be opened."""
    try:
        return hash_of(path.read_bytes())
    except OSError:
        return hash_of(b"")
