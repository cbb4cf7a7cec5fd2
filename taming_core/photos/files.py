"""The photo files of a folder: listing them, naming them, and finding copies."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.fingerprints import digest, hash_of

NOTES = ("metadata", "readme", "license", "licence", "notice", "copying")


def list_photos(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted by path, whether it is an image or not.

    Left out are metadata.*, hidden files, and notes (*.md, LICENSE, README).

    Raises:
        TamingError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise TamingError(f"{folder} is not a folder. Put photos there, or name the folder that holds them.")
    paths = sorted(p for p in files_below(folder) if p.stem.lower() not in NOTES and p.suffix.lower() != ".md")
    if not paths:
        raise TamingError(f"{folder} holds no photos. Put some there, a sub-folder for each object that they show.")
    return paths


def files_below(folder: Path) -> Iterator[Path]:
    """All files below `folder` that are not hidden; linked folders are followed."""
    for parent, names, files in os.walk(folder, followlinks=True):
        names[:] = [n for n in names if not n.startswith(".")]
        yield from (Path(parent, n) for n in files if not n.startswith("."))


def folder_state(folder: Path) -> str:
    """16 hex digits that change when a file below `folder` is added, removed or written (name, size, time)."""
    return digest(_file_state(path, folder) for path in sorted(files_below(folder)))


def _file_state(path: Path, folder: Path) -> bytes:
    stat = path.stat() if path.exists() else path.lstat()  # a broken link
    return f"{file_name(path, folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()


def file_name(path: Path, folder: Path) -> str:
    """A photo's name in every table: its path below the raw folder, with forward slashes."""
    return path.relative_to(folder).as_posix()


def folder_identity(name: str) -> str | None:
    """The first folder of a file name; None for a photo outside any sub-folder.

    >>> folder_identity("my-dog/garden/1.jpg")
    'my-dog'
    """
    return name.split("/")[0] if "/" in name else None


def find_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Maps each file to an earlier one with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].append(path)
    first: dict[str, Path] = {}
    candidates = [p for group in by_size.values() if len(group) > 1 for p in group]
    return {p: original for p in candidates if (original := first.setdefault(hash_of(p.read_bytes()), p)) != p}


def photo_id_of(path: Path) -> str:
    """The `hash_of` a photo file; the hash of no bytes if the file cannot be opened."""
    try:
        return hash_of(path.read_bytes())
    except OSError:
        return hash_of(b"")
