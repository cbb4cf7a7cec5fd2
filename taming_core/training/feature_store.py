"""A key-value store of tensors on disk; the key is a digest of the content that the tensors were computed from.

A folder holds shards in the safetensors format, each written once and atomically under a unique name, so that several
processes can fill it, and a crash loses only the shard that was being written. Every entry has a checksum.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from taming_core.files import remove_parts, replacing
from taming_core.fingerprints import Buffer, digest

ENTRIES = 256  # maximum per shard
BYTES = 64 * 2**20  # approximate maximum per shard
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # by their names in the header

Entry = Mapping[str, Tensor]
Header = Mapping[str, Any]


@dataclass(frozen=True)
class FeatureStore:
    """The index of a folder when it was opened; safe to read from several threads."""

    folder: Path
    shards: tuple[str, ...]  # file names, oldest first
    keys: NDArray[Any]  # of all entries, dtype S32, sorted
    places: NDArray[np.int32]  # index in `shards` of each key
    unreadable: int  # number of shards with a damaged header


def key_of(*content: bytes) -> str:
    """The key of an entry that is computed from this content: 32 hex digits."""
    return digest((len(part).to_bytes(8, "little") + part for part in content), size=16)


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, oldest first."""
    return sorted(folder.glob("*.safetensors"))


def open_store(folder: Path) -> FeatureStore:
    """Index a folder; reads only the headers of its shards."""
    paths = shard_files(folder)
    headers = {path.name: header for path in paths if (header := _header_of(path)) is not None}
    names = tuple(headers)
    pairs = [(key, place) for place, name in enumerate(names) for key in headers[name]["__metadata__"]]
    keys = np.array([key for key, _ in pairs], dtype="S32")
    order = np.argsort(keys, kind="stable")  # equal keys stay in the order of their shards, oldest first
    places = np.array([place for _, place in pairs], dtype=np.int32)
    return FeatureStore(folder, names, keys[order], places[order], len(paths) - len(names))


def _header_of(path: Path) -> Header | None:
    """The header of a shard, or None if it is damaged."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 0 < length <= path.stat().st_size - 8:
            header: dict[str, Any] | None = json.loads(file.read(length))
            if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
                return {**header, "start": 8 + length}
    return None


@lru_cache(maxsize=256)
def _cached_header(path: Path) -> Header | None:
    return _header_of(path)  # a shard never changes once it has its name


def find(store: FeatureStore, key: str) -> dict[str, Tensor] | None:
    """The entry of this key, or None if there is none with a valid checksum."""
    low, high = (int(np.searchsorted(store.keys, key.encode(), side)) for side in ("left", "right"))
    places: list[int] = store.places[low:high][::-1].tolist()
    for place in places:  # a damaged entry is computed again into a newer shard
        entry = _read(store.folder / store.shards[place], key)
        if entry is not None:
            return entry
    return None


def holds(store: FeatureStore, key: str) -> bool:
    """Whether there is an entry of this key, valid or damaged."""
    index = int(np.searchsorted(store.keys, key.encode()))
    return index < len(store.keys) and store.keys[index] == key.encode()


def first_valid_entry(store: FeatureStore) -> dict[str, Tensor] | None:
    """The first valid entry, for the names, dtypes and shapes of its tensors."""
    entries = (find(store, key.decode()) for key in store.keys)
    return next((entry for entry in entries if entry is not None), None)


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    header = _cached_header(path)
    if header is None:
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError), path.open("rb") as file:
        infos = {name: info for name, info in header.items() if name.startswith(f"{key}/")}
        entry = {name.split("/")[1]: _tensor(file, header["start"], info) for name, info in infos.items()}
        if entry and checksum(entry) == header["__metadata__"].get(key):
            return entry
    return None


def _tensor(file: Any, start: int, info: Mapping[str, Any]) -> Tensor:
    first, last = info["data_offsets"]
    file.seek(start + first)
    data = bytearray(file.read(last - first))
    return torch.frombuffer(data, dtype=DTYPES[info["dtype"]]).reshape(info["shape"])


def checksum(entry: Entry) -> str:
    """16 hex digits of an entry's names, dtypes, shapes and values."""
    return digest(chain.from_iterable(_tensor_bytes(name, entry[name]) for name in sorted(entry)))


def _tensor_bytes(name: str, value: Tensor) -> tuple[bytes, Buffer]:
    kind = f"{name} {value.dtype} {tuple(value.shape)}".encode()
    return kind, value.contiguous().flatten().view(torch.uint8).numpy().data


def is_full(entries: Mapping[str, Entry]) -> bool:
    """Whether the entries are enough for a shard."""
    size = sum(value.nbytes for entry in entries.values() for value in entry.values())
    return len(entries) >= ENTRIES or size >= BYTES


def write_shard(folder: Path, entries: Mapping[str, Entry]) -> Path:
    """Write the entries (on the CPU) atomically as one file with a unique name."""
    # The name starts with the time, so that the order of shards shows which of two entries of one key is newer.
    path = folder / f"{time.time_ns():020d}-{uuid4().hex[:12]}.safetensors"
    tensors = {f"{key}/{name}": value.contiguous() for key, entry in entries.items() for name, value in entry.items()}
    checksums = {key: checksum(entry) for key, entry in entries.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        remove_parts(folder, nested=False)  # of crashed processes, since this one has the lock
        with replacing(path) as part:
            part.write_bytes(save(tensors, checksums))  # `save_file` has a temporary file of its own
    return path
