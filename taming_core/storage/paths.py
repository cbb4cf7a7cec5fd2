"""Paths of local files and of objects in a store (s3://, gs://, hf://, memory://), one kind of object for both."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from fsspec.registry import known_implementations, registry
from typing_extensions import TypeIs
from upath import UPath

from taming_core.errors import TamingError

AnyPath: TypeAlias = Path | UPath  # a UPath of a local file is a Path too
EXTRAS = {"s3fs": "'taming[s3]'", "gcsfs": "'taming[gs]'"}  # our own, for the packages that read stores


def as_path(text: str) -> AnyPath:
    """The path that a text of the command line names: a URL, or a local path.

    >>> as_path("data/raw").as_posix(), as_path("file:///data/raw").as_posix(), as_path("memory://photos/dog/").name
    ('data/raw', '/data/raw', 'dog')

    Raises:
        TamingError: the URL is of no kind that fsspec knows, names no bucket, or needs a package that is not installed.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return Path(text)
    if scheme in ("file", "local"):
        return Path(rest)
    require_file_system(scheme, text)
    if not rest.strip("/"):
        raise TamingError(f"{text} names no bucket or folder. Write {scheme}://BUCKET/FOLDER.")
    return UPath(f"{scheme}://{rest.rstrip('/')}")


def require_file_system(scheme: str, text: str) -> None:
    """Raises TamingError if fsspec has no file system for the scheme of a URL, or its package is not installed."""
    known: dict[str, dict[str, Any]] = known_implementations
    if scheme not in known and scheme not in registry:
        raise TamingError(f"{text} cannot be used: there is no file system {scheme}://. Write s3://, gs://, hf:// or a "
                          "local path.")  # fmt: skip
    package = known[scheme]["class"].split(".")[0] if scheme in known else "fsspec"
    if find_spec(package) is None:
        raise TamingError(f"{text} needs the package {package}, which is not installed. Run pip install "
                          f"{EXTRAS.get(package, package)}.")  # fmt: skip


def is_remote(path: AnyPath) -> TypeIs[UPath]:
    """Whether a path is that of an object in a store."""
    return not isinstance(path, Path)


def join(folder: AnyPath, below: Path) -> AnyPath:
    """The path of what lies below a folder, named relative to it."""
    return folder / below if isinstance(folder, Path) else folder.joinpath(*below.parts)
