"""What an image can be made again from: the weights' fingerprint and the versions of what drew it."""

import json
import platform
from collections.abc import Iterator
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel

PACKAGES = ("taming", "torch", "diffusers", "transformers", "numpy", "pillow")
CHUNK = 1 << 22  # bytes read at once


def folder_fingerprint(folder: Path) -> str:
    """16 hex digits that change with the name or the content of any file below `folder`."""
    digest = blake2b(digest_size=8)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        for chunk in _chunks(path):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def versions() -> dict[str, str]:
    """Of Python and of the packages that an image depends on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was never installed
        return "not installed"


def fingerprint(section: BaseModel, *inputs: str, without: frozenset[str] = frozenset()) -> str:
    """16 hex digits of the section's values and the inputs; `without` names keys that change no result."""
    text = json.dumps([section.model_dump(exclude=set(without)), inputs], sort_keys=True)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def hash_of(data: bytes) -> str:
    """16 hex digits that name the content of a file."""
    return blake2b(data, digest_size=8).hexdigest()
