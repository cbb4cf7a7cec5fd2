"""What lies below a folder, local or in a store: every file once."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage.filesystem import list_folder, list_objects, object_state
from taming_core.storage.paths import AnyPath, is_remote, join

NOTES = frozenset(["__MACOSX", "@eaDir"])  # folders of archives of macOS, and of Synology's thumbnails


@dataclass(frozen=True)
class StoredObject:
    """What the listing of a store says of a file."""

    size: int  # bytes
    state: str  # changes when it is written


@dataclass(frozen=True)
class Tree:
    """What lies below a folder; all paths but `root` are relative to it."""

    root: AnyPath
    files: list[Path] = field(default_factory=list[Path])  # each real file once, sorted; dangling links too
    unreadable: list[Path] = field(default_factory=list[Path])  # folders
    links: list[Path] = field(default_factory=list[Path])  # to files and folders that are listed by another path
    hidden: list[Path] = field(default_factory=list[Path])  # below a name that begins with a dot, or is one of `NOTES`
    objects: dict[Path, StoredObject] = field(default_factory=dict[Path, StoredObject])  # of a store: files and hidden

    def path(self, below: Path) -> AnyPath:
        """The path of what lies below the root."""
        return join(self.root, below)

    def has_file(self, below: Path) -> bool:
        """Whether a relative path leads to a file, hidden or not."""
        return below in self.objects if is_remote(self.root) else is_file(self.root / below)

    def size(self, below: Path) -> int:
        """The bytes of a regular file; 0 for anything else, and for what cannot be looked at."""
        if is_remote(self.root):
            return self.objects[below].size if below in self.objects else 0
        return file_size(self.root / below)

    def state(self, below: Path) -> str:
        """A text that changes when a file is written: its size and time, or what its store has for them."""
        return self.objects[below].state if is_remote(self.root) else _file_state(self.root / below)


def read_tree(root: AnyPath) -> Tree:
    """All files below a folder; linked ones too, unless they are listed by their own path or by an earlier link.

    A link to a folder above `root` would come back to it, and is not followed. Of a store all objects are listed at
    once, a thousand with each request.

    Raises:
        TamingError: there is no such folder, or it cannot be read.
    """
    return _stored_tree(root) if is_remote(root) else _local_tree(Path(root))


def _stored_tree(root: UPath) -> Tree:
    tree = Tree(root)
    for name, info in list_objects(root).items():
        path = Path(name)
        if not name.endswith("/"):  # the empty objects by which consoles make folders
            (tree.hidden if _is_hidden(path.parts) else tree.files).append(path)
            tree.objects[path] = StoredObject(int(info["size"] or 0), object_state(info))
    if not tree.objects:
        raise TamingError(f"There is nothing at {root}. Check the URL, or put photos there.")
    tree.files.sort()
    tree.hidden.sort()
    return tree


def read_near(folder: AnyPath, name: str) -> Tree:
    """The files in a folder, and in those of its folders that begin with a name, in upper or lower case."""
    tree, folders = Tree(folder), list[Path]()
    _list_into(tree, Path(), folders)
    for inside in [path for path in folders if path.name.lower().startswith(name)]:
        _list_into(tree, inside, [])
    return tree


def _list_into(tree: Tree, below: Path, folders: list[Path]) -> None:
    """Add the files in one folder to a tree, and its folders to `folders`."""
    if not is_remote(tree.root):
        found = sorted((tree.root / below).glob("*"))
        folders += [path.relative_to(tree.root) for path in found if is_folder(path)]
        tree.files.extend(path.relative_to(tree.root) for path in found)
        return
    for name, info in list_folder(tree.root.joinpath(*below.parts)).items():
        if info["type"] == "directory":
            folders.append(below / name)
        else:
            tree.files.append(below / name)
            tree.objects[below / name] = StoredObject(int(info["size"] or 0), object_state(info))


def _local_tree(root: Path) -> Tree:
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
        paths[:] = sorted(path.relative_to(root) for path in paths)
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


def file_size(path: Path) -> int:
    """The bytes of a regular file; 0 for anything else, and for what cannot be looked at."""
    return path.stat().st_size if is_file(path) else 0


def _file_state(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # a broken link, or one to a folder that cannot be read
        if not path.is_symlink():
            return "gone"
        stat = path.lstat()
    return f"{stat.st_size}\0{stat.st_mtime_ns}"
