"""The files of a folder of photos, local or in a store: reading and naming them, and finding copies."""

import errno
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from taming_core.fingerprints import digest, hash_of
from taming_core.photos.tree import Tree, read_tree
from taming_core.storage.paths import AnyPath, is_remote, join
from taming_core.storage.reading import map_reads, read_object


def read_file(path: AnyPath) -> bytes:
    """The content of a regular file, or of an object in a store.

    Raises:
        OSError: it cannot be read, or is a pipe, a socket or a device, which may have no end.
        TamingError: the store cannot be reached, see `storage.reading`.
    """
    if is_remote(path):
        return read_object(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.read_bytes()


def folder_state(folder: AnyPath) -> str:
    """16 hex digits that change when a file below `folder` is added, removed or written (name, size, time)."""
    return tree_state(read_tree(folder))


def tree_state(tree: Tree) -> str:
    """The `folder_state` of a folder whose files are listed."""
    return digest(f"{name_of(p)}\0{tree.state(p)}\0".encode() for p in sorted([*tree.files, *tree.unreadable]))


def file_name(path: AnyPath, folder: AnyPath) -> str:
    r"""A photo's name in every table: its path below the raw folder, with forward slashes; see `photo_path`.

    A byte that is not UTF-8 is written as `\xNN`, and a backslash as `\x5c`, so that every name is text and unique.

    >>> file_name(Path("raw/dog/1.jpg"), Path("raw")), file_name(Path("raw/caf\udce9.jpg"), Path("raw"))
    ('dog/1.jpg', 'caf\\xe9.jpg')
    """
    below = path.relative_to(folder)  # pyright: ignore[reportArgumentType]  both are of one kind
    return name_of(Path(*below.parts))


def name_of(below: Path) -> str:
    """The `file_name` of a path that is relative to the folder."""
    return os.fsencode(below.as_posix()).replace(b"\\", rb"\x5c").decode("utf-8", "backslashreplace")


def photo_path(folder: AnyPath, name: str) -> AnyPath:
    r"""The path of a photo by its name in a table, the inverse of `file_name`.

    >>> photo_path(Path("raw"), "caf\\xe9.jpg") == Path("raw/caf\udce9.jpg")
    True
    """
    return join(folder, path_of(name))


def path_of(name: str) -> Path:
    """The path, relative to the folder, of a photo by its name in a table; the inverse of `name_of`."""
    escaped = name.encode("utf-8", "surrogatepass")
    return Path(os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), escaped)))


def find_copies(sizes: Mapping[AnyPath, int]) -> dict[AnyPath, AnyPath]:
    """Maps each file to an earlier one with the same bytes; only files of equal size, in bytes, are read."""
    by_size: dict[int, list[AnyPath]] = defaultdict(list)
    for path, size in sizes.items():
        if size:
            by_size[size].append(path)
    first: dict[str, AnyPath] = {}
    candidates = [p for group in by_size.values() if len(group) > 1 for p in group]
    known = zip(candidates, map_reads(photo_id_of, candidates), strict=True)
    return {p: original for p, key in known if key != NO_BYTES and (original := first.setdefault(key, p)) != p}


NO_BYTES = hash_of(b"")


def photo_id_of(path: AnyPath) -> str:
    """The `hash_of` a photo file; the hash of no bytes if the file cannot be opened."""
    try:
        return hash_of(read_file(path))
    except OSError:
        return NO_BYTES
