"""The files of a folder of photos: finding each once, naming them, and finding copies."""

import errno
import os
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.fingerprints import digest, hash_of

NOTES = frozenset(["__MACOSX", "@eaDir"])  # folders of archives of macOS, and of Synology's thumbnails


@dataclass(frozen=True)
class Tree:
    """What lies below a folder."""

    root: Path
    files: list[Path] = field(default_factory=list[Path])  # each real file once, sorted; dangling links too
    unreadable: list[Path] = field(default_factory=list[Path])  # folders
    links: list[Path] = field(default_factory=list[Path])  # to files and folders that are listed by another path
    hidden: list[Path] = field(default_factory=list[Path])  # below a name that begins with a dot, or is one of `NOTES`


def read_tree(root: Path) -> Tree:
    """All files below a folder; linked ones too, unless they are listed by their own path or by an earlier link.

    A link to a folder above `root` would come back to it, and is not followed.

    Raises:
        TamingError: there is no such folder, or it cannot be read.
    """
    if not is_folder(root):
        raise TamingError(f"{root} is not a folder. Put photos there, or name the folder that holds them.")
    tree, links, bases = Tree(root), deque[Path](), [Path(os.path.realpath(root))]
    linked: set[str] = set()  # real paths of files outside, or hidden, that links have reached
    _add(root, tree, links)
    if root in tree.unreadable:
        raise TamingError(f"{root} cannot be read. Give yourself the permission, or name another folder.")
    while links:
        link = links.popleft()
        real = os.path.realpath(link)
        if _is_broken(link):
            tree.files.append(link)
        elif _is_listed(Path(real), bases) or real in linked:
            tree.links.append(link)
        elif is_folder(link):
            bases.append(Path(real))
            _add(link, tree, links)
        else:
            linked.add(real)
            tree.files.append(link)
    if linked:
        tree.hidden[:] = [path for path in tree.hidden if os.path.realpath(path) not in linked]
    for paths in (tree.files, tree.unreadable, tree.links, tree.hidden):
        paths.sort()
    return tree


def _is_broken(link: Path) -> bool:
    try:
        return not link.exists()
    except OSError:  # no permission to look
        return False


def _is_listed(real: Path, bases: Sequence[Path]) -> bool:
    """Whether a real path is listed below one of the folders, or is a folder that holds one of them."""
    parts = [real.relative_to(base).parts for base in bases if real.is_relative_to(base)]
    return any(not _is_hidden(p) for p in parts) or any(base.is_relative_to(real) for base in bases)


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part in NOTES for part in parts)


def _add(folder: Path, tree: Tree, links: deque[Path]) -> None:
    """Add what lies below a folder to the tree, but links to `links`."""
    folders = [folder]
    while folders:
        current = folders.pop()
        try:
            with os.scandir(current) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            tree.unreadable.append(current)
            continue
        for entry in found:
            path, is_parent = Path(current, entry.name), entry.is_dir(follow_symlinks=False)
            if _is_hidden([entry.name]):
                tree.hidden.extend(_files_in(path) if is_parent else [path])
            elif entry.is_symlink():
                links.append(path)
            elif is_parent:
                folders.append(path)
            else:
                tree.files.append(path)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; False where that cannot be looked up."""
    try:
        return path.is_dir()
    except OSError:  # no permission; from Python 3.14 on this is False without us
        return False


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file; False where that cannot be looked up."""
    try:
        return path.is_file()
    except OSError:
        return False


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def read_file(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it cannot be read, or is a pipe, a socket or a device, which may have no end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.read_bytes()


def folder_state(folder: Path) -> str:
    """16 hex digits that change when a file below `folder` is added, removed or written (name, size, time)."""
    tree = read_tree(folder)
    return digest(_file_state(path, folder) for path in sorted([*tree.files, *tree.unreadable]))


def _file_state(path: Path, folder: Path) -> bytes:
    try:
        stat = path.stat()
    except OSError:  # a broken link, or one to a folder that cannot be read
        stat = path.lstat()
    return f"{file_name(path, folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()


def file_name(path: Path, folder: Path) -> str:
    r"""A photo's name in every table: its path below the raw folder, with forward slashes; see `photo_path`.

    A byte that is not UTF-8 is written as `\xNN`, and a backslash as `\x5c`, so that every name is text and unique.

    >>> file_name(Path("raw/dog/1.jpg"), Path("raw")), file_name(Path("raw/caf\udce9.jpg"), Path("raw"))
    ('dog/1.jpg', 'caf\\xe9.jpg')
    """
    name = path.relative_to(folder).as_posix()
    return os.fsencode(name).replace(b"\\", rb"\x5c").decode("utf-8", "backslashreplace")


def photo_path(folder: Path, name: str) -> Path:
    r"""The path of a photo by its name in a table, the inverse of `file_name`.

    >>> photo_path(Path("raw"), "caf\\xe9.jpg") == Path("raw/caf\udce9.jpg")
    True
    """
    escaped = name.encode("utf-8", "surrogatepass")
    return folder / os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), escaped))


def find_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Maps each file to an earlier one with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        if size := _size(path):
            by_size[size].append(path)
    first: dict[str, Path] = {}
    candidates = [p for group in by_size.values() if len(group) > 1 for p in group]
    known = ((p, photo_id_of(p)) for p in candidates)
    return {p: original for p, key in known if key != NO_BYTES and (original := first.setdefault(key, p)) != p}


def _size(path: Path) -> int:
    """The bytes of a regular file; 0 for anything else, and for what cannot be looked at."""
    return path.stat().st_size if is_file(path) else 0


NO_BYTES = hash_of(b"")


def photo_id_of(path: Path) -> str:
    """The `hash_of` a photo file; the hash of no bytes if the file cannot be opened."""
    try:
        return hash_of(read_file(path))
    except OSError:
        return NO_BYTES
