"""Folders of an object store that are replaced as a whole: a marker, written last, lists the files of the newest one.

Stores have no rename. The marker is named as that of Spark and Hadoop, `_SUCCESS`, and lists the files as that of
Hadoop's S3A committers does: https://hadoop.apache.org/docs/stable/hadoop-aws/tools/hadoop-aws/committers.html
"""

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage.filesystem import explaining, filesystem, list_objects, object_state
from taming_core.storage.paths import AnyPath
from taming_core.storage.reading import read_object

MARKER = "_SUCCESS"
VERSION = 1


def read_marker(folder: UPath) -> dict[str, Any] | None:
    """What the marker of a folder says: `files`, the sizes by name, or null while they are replaced; None without one.

    Raises:
        TamingError: the marker is another program's, or of another version.
    """
    path = folder / MARKER
    try:
        data = read_object(path)
    except FileNotFoundError:
        return None
    if not data:  # of Spark and its like, which say no more than that the folder is complete
        return None
    try:
        content: dict[str, Any] = json.loads(data)
        if content["version"] == VERSION and "files" in content:
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise TamingError(f"{path} was not written by this version of taming. Remove it to have all files of {folder} "
                      "read, or name another folder.")  # fmt: skip


def is_being_replaced(folder: UPath) -> bool:
    """Whether the files of a folder are being replaced, or were when a process was killed."""
    content = read_marker(folder)
    return content is not None and content["files"] is None


def committed(folder: UPath) -> dict[str, dict[str, Any]]:
    """What the store says of each file of the folder's newest commit, by name; of all files where there is no marker.

    Raises:
        TamingError: the files are being replaced; or one is missing or has another size: something else changed it.
    """
    content, found = read_marker(folder), list_objects(folder)
    if content is None:
        return {name: info for name, info in found.items() if name != MARKER}
    if content["files"] is None:
        raise TamingError(f"{folder} is being replaced, or that was interrupted. Wait for the command that writes it, "
                          "or run it again.")  # fmt: skip
    sizes: dict[str, int] = content["files"]
    for name, size in sizes.items():
        if name not in found or found[name]["size"] != size:
            what = "is missing" if name not in found else f"has {found[name]['size']} bytes, not {size}"
            raise TamingError(f"{folder / name} {what}, which {MARKER} there lists. Run the command again that wrote "
                              "the folder.")  # fmt: skip
    return {name: found[name] for name in sizes}


def replace_files(made: Path, folder: UPath) -> None:
    """Replace a folder by a local one whose files have fixed names; until it is complete, its marker says so."""
    with explaining(folder):
        fs = filesystem(folder)
        write_marker(folder, None)
        files = {path.relative_to(made).as_posix(): path for path in sorted(made.rglob("*")) if path.is_file()}
        fs.put([str(path) for path in files.values()], [(folder / name).path for name in files])
        commit(folder, {name: path.stat().st_size for name, path in files.items()})


def replace_versioned(made: AnyPath, folder: UPath) -> None:
    """Replace a folder by another, whose files get names of their own, so that the earlier ones can be read meanwhile.

    `train-00000.parquet` becomes `train-00000-1a2b3c4d.parquet`: the same content has the same name, and what a killed
    process has uploaded is not uploaded again.

    Args:
        made: without folders in it; local, or in the same store.
        folder: the one to replace.
    """
    with explaining(folder):
        fs, there = filesystem(folder), list_objects(folder)
        sizes = dict[str, int]()
        for name, (source, size, state) in _contents(made).items():
            to = versioned(name, state)
            if to not in there or there[to]["size"] != size:
                copy = fs.put_file if isinstance(made, Path) else fs.cp_file
                copy(source, (folder / to).path)
            sizes[to] = size
        commit(folder, sizes)


def _contents(made: AnyPath) -> dict[str, tuple[str, int, str]]:
    """Of each file in a folder: its path, its size, and what differs with its content."""
    if isinstance(made, Path):
        return {p.name: (str(p), p.stat().st_size, _hash(p)) for p in sorted(made.iterdir())}
    return {name: (str(info["name"]), info["size"], object_state(info)) for name, info in list_objects(made).items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        hashed = blake2b()
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def versioned(name: str, state: str) -> str:
    """A file's name in a folder of which each version has names of its own; see `plain_name`.

    >>> versioned("train-00000.parquet", "abc")
    'train-00000-63906248.parquet'
    """
    stem, dot, ending = name.partition(".")
    return f"{stem}-{blake2b(state.encode(), digest_size=4).hexdigest()}{dot}{ending}"


def plain_name(name: str) -> str:
    """The name of a file of rows without what `versioned` appended, so that rows are the same rows wherever they lie.

    >>> plain_name("train-00000-63906248.parquet"), plain_name("train-00000.parquet")
    ('train-00000.parquet', 'train-00000.parquet')
    """
    return re.sub(r"(-\d{5,})-[0-9a-f]{8}(\.parquet)$", r"\1\2", name)


def commit(folder: UPath, sizes: Mapping[str, int]) -> None:
    """Write the marker, which is the moment of replacing, and remove the files that it does not list."""
    with explaining(folder):
        write_marker(folder, dict(sorted(sizes.items())))
        remove_objects(folder, (name for name in list_objects(folder) if name not in sizes and name != MARKER))


def write_marker(folder: UPath, files: Mapping[str, int] | None) -> None:
    """Write the marker; None says that the files are being replaced."""
    content = json.dumps({"version": VERSION, "files": files}, indent=2) + "\n"
    filesystem(folder).pipe_file((folder / MARKER).path, content.encode())


def remove_objects(folder: UPath, names: Iterable[str]) -> None:
    """Remove objects below a folder."""
    if paths := [(folder / name).path for name in names]:
        filesystem(folder).rm(paths)


def remove_all(path: UPath) -> None:
    """Remove an object, or all objects below a path."""
    with explaining(path):
        fs = filesystem(path)
        if fs.exists(path.path):
            fs.rm(path.path, recursive=True)
