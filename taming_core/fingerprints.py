"""Content hashes and package versions: what identifies the inputs of a run, and makes an image reproducible."""

import json
import platform
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel

PACKAGES = ("taming", "torch", "diffusers", "transformers", "numpy", "pillow")
CHUNK = 1 << 22  # bytes read at once

Buffer = bytes | memoryview


def digest(parts: Iterable[Buffer], size: int = 8) -> str:
    """The BLAKE2b digest of the concatenated parts, `size` bytes as hex digits."""
    state = blake2b(digest_size=size)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """16 hex digits that change with the name or the content of any file below `folder`."""
    return digest(
        chunk for path in sorted(p for p in folder.rglob("*") if p.is_file()) for chunk in _chunks(path, folder)
    )


def _chunks(path: Path, folder: Path) -> Iterator[bytes]:
    """A file's name and size, and then its content."""
    yield f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode()
    yield from file_chunks(path)


def file_chunks(path: Path) -> Iterator[bytes]:
    """The content of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that an image depends on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was never installed
        return "not installed"


def fingerprint(section: BaseModel, *inputs: str, without: frozenset[str] = frozenset()) -> str:
    """16 hex digits of the section's values and the inputs; `without` names keys that change no result."""
    text = json.dumps([section.model_dump(exclude=set(without)), inputs], sort_keys=True)
    return digest([text.encode()])


def hash_of(data: bytes) -> str:
    """16 hex digits that identify the content of a file."""
    return digest([data])
