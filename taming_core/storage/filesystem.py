"""Object stores by fsspec: the file system of a path in this process, what tells two contents apart, and errors."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import fsspec
from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage.paths import AnyPath, is_remote

# What tells two contents of one name apart, by store; the first that an object has counts.
CHANGES = ("ETag", "etag", "md5Hash", "crc32c", "blob_id", "content_md5", "mtime", "LastModified", "created")
# Packages whose errors come from a store or from the way to it, besides OSError.
CLIENTS = ("botocore", "aiohttp", "fsspec", "s3fs", "gcsfs", "google", "huggingface_hub", "requests", "httpx")


def filesystem(path: UPath) -> Any:
    """The fsspec file system of a path; one per process, as they do not survive a fork, and without caches of listings.

    Raises:
        TamingError: the package for this kind of store is not installed.
    """
    options: dict[str, Any] = {**path.storage_options, "use_listings_cache": False}
    try:
        return cast(Any, fsspec).filesystem(path.protocol, **options)
    except ImportError as error:
        raise TamingError(f"{path} needs a package that is not installed: {error}. Run pip install "
                          "'taming[s3]' or 'taming[gs]'.") from error  # fmt: skip


def list_objects(folder: UPath) -> dict[str, dict[str, Any]]:
    """What the store says of each object below a folder, by its name there; empty if there is none.

    Raises:
        TamingError: there is no such bucket, or it may not or cannot be listed.
    """
    base = folder.path.rstrip("/") + "/"
    with explaining(folder):
        found: dict[str, dict[str, Any]] = filesystem(folder).find(folder.path, detail=True)
    return {name.removeprefix(base): info for name, info in found.items() if name.startswith(base) and name != base}


def kind_of(path: UPath) -> str | None:
    """Whether a path is that of an object (`file`) or of a folder (`directory`); None if there is neither.

    Raises:
        TamingError: the store cannot be reached, or does not allow to look.
    """
    with explaining(path):
        try:
            return filesystem(path).info(path.path)["type"]
        except FileNotFoundError:
            return None


def exists(path: AnyPath) -> bool:
    """Whether there is a file or a folder at a path."""
    return kind_of(path) is not None if is_remote(path) else Path(path).exists()


def is_folder(path: AnyPath) -> bool:
    """Whether a path is that of a folder; in a store, of one with something in it."""
    return kind_of(path) == "directory" if is_remote(path) else Path(path).is_dir()


def is_file(path: AnyPath) -> bool:
    """Whether there is a file at a path."""
    return kind_of(path) == "file" if is_remote(path) else Path(path).is_file()


def list_folder(folder: UPath) -> dict[str, dict[str, Any]]:
    """What the store says of each object and folder in a folder, by its name there; empty if there is no such folder.

    Raises:
        TamingError: it may not or cannot be listed.
    """
    with explaining(folder):
        try:
            found: list[dict[str, Any]] = filesystem(folder).ls(folder.path, detail=True)
        except FileNotFoundError:
            return {}
    named = {info["name"].rstrip("/").rpartition("/")[2]: info for info in found}
    return {name: info for name, info in named.items() if info["name"].strip("/") != folder.path.strip("/")}


def file_state(path: AnyPath) -> str:
    """A text that changes when a file is written again: its size and time, or what its store has for them.

    Raises:
        TamingError: a store has no such file, or cannot be reached.
    """
    if is_remote(path):
        with explaining(path):
            return object_state(filesystem(path).info(path.path))
    stat = Path(path).stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def object_state(info: Mapping[str, Any]) -> str:
    """What differs when the object of `info`, as fsspec gives it, has been written again with another content.

    >>> object_state({"name": "bucket/a", "size": 3, "ETag": '"5d41"', "LastModified": "now"})
    '3 "5d41"'
    """
    return f"{info['size']} {next((info[key] for key in CHANGES if info.get(key) is not None), '')}"


@contextmanager
def explaining(path: UPath) -> Generator[None]:
    """Turns errors of a store in the block, which its clients have already retried, into a TamingError with `path`."""
    try:
        yield
    except TamingError:
        raise
    except FileNotFoundError as error:
        raise TamingError(f"{path} cannot be found: {_said(error)}. Check the URL, and that its bucket "
                          "exists.") from error  # fmt: skip
    except PermissionError as error:
        raise TamingError(f"{path} may not be used: {_said(error)}. Check the credentials of the environment, and what "
                          "they allow.") from error  # fmt: skip
    except Exception as error:
        if not is_store_error(error):
            raise
        raise TamingError(f"{path} cannot be reached: {_said(error)}. Check network, endpoint and credentials, and run "
                          "the same command again: finished work is kept.") from error  # fmt: skip


def is_store_error(error: Exception) -> bool:
    """Whether an error comes from a store or from the way to it, rather than from this machine or from a bug."""
    causes = (error, error.__cause__)  # s3fs turns errors of botocore into those of the system
    return isinstance(error, ConnectionError | TimeoutError) or any(_package(e) in CLIENTS for e in causes)


def _package(error: BaseException | None) -> str:
    return type(error).__module__.partition(".")[0]


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
