"""What is kept on disk instead of computed again: tensors by the digest of what they were made from.

A folder holds shards in the safetensors format, each written once and whole under a name of its own, so that any number
of processes may fill it, and a crash loses but the shard that was being made. Every entry has a checksum.
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
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from taming_core.files import replacing
from taming_core.fingerprints import Buffer, digest

ENTRIES = 256  # in a shard, at most
BYTES = 64 * 2**20  # of a shard, about
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # by their names in a header

Entry = Mapping[str, Tensor]
Header = Mapping[str, Any]


@dataclass(frozen=True)
class FeatureStore:
    """A folder of entries, as it was when it was opened; read by any number of threads."""

    folder: Path
    shards: tuple[str, ...]  # file names, oldest first
    keys: NDArray[np.bytes_]  # of all entries, in order
    places: NDArray[np.int32]  # the shard of each
    unreadable: int  # shards that are damaged so far that they have no entries


def key_of(*content: bytes) -> str:
    """The key of what is made from this content: 32 hex digits."""
    return digest((len(part).to_bytes(8, "little") + part for part in content), size=16)


def open_store(folder: Path) -> FeatureStore:
    """Read where every entry is; costs the headers of the files alone."""
    paths = sorted(folder.glob("*.safetensors"))
    found = {path.name: header for path in paths if (header := _header_of(path)) is not None}
    names = tuple(found)
    listed = [(key, place) for place, name in enumerate(names) for key in found[name]["__metadata__"]]
    keys = np.array([key for key, _ in listed], dtype="S32")
    order = np.argsort(keys, kind="stable")  # of one key, the entry of the oldest shard stays first
    places = np.array([place for _, place in listed], dtype=np.int32)
    return FeatureStore(folder, names, keys[order], places[order], len(paths) - len(names))


def _header_of(path: Path) -> Header | None:
    """The header of a shard, or None where it is damaged."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 0 < length <= path.stat().st_size - 8:
            found = json.loads(file.read(length))
            if isinstance(found, dict) and isinstance(found.get("__metadata__"), dict):
                return {**found, "start": 8 + length}
    return None


@lru_cache(maxsize=256)
def _header_kept(path: Path) -> Header | None:
    return _header_of(path)  # a shard never changes once it has its name


def find(store: FeatureStore, key: str) -> dict[str, Tensor] | None:
    """The entry of this key, or None where there is none whose checksum is right."""
    low, high = (int(np.searchsorted(store.keys, key.encode(), side)) for side in ("left", "right"))
    for place in reversed(store.places[low:high]):  # what is damaged was made again, and stands in a newer shard
        found = _read(store.folder / store.shards[place], key)
        if found is not None:
            return found
    return None


def holds(store: FeatureStore, key: str) -> bool:
    """Whether there is an entry of this key, sound or damaged."""
    at = int(np.searchsorted(store.keys, key.encode()))
    return at < len(store.keys) and store.keys[at] == key.encode()


def first_sound_entry(store: FeatureStore) -> dict[str, Tensor] | None:
    """Some entry that is sound, to see what entries are like."""
    found = (find(store, key.decode()) for key in store.keys)
    return next((entry for entry in found if entry is not None), None)


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    header = _header_kept(path)
    if header is None:
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError), path.open("rb") as file:
        described = {name: told for name, told in header.items() if name.startswith(f"{key}/")}
        found = {name.split("/")[1]: _tensor(file, header["start"], told) for name, told in described.items()}
        if found and checksum(found) == header["__metadata__"].get(key):
            return found
    return None


def _tensor(file: Any, start: int, told: Mapping[str, Any]) -> Tensor:
    first, last = told["data_offsets"]
    file.seek(start + first)
    data = bytearray(file.read(last - first))
    return torch.frombuffer(data, dtype=DTYPES[told["dtype"]]).reshape(told["shape"])


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
    """Write the entries (on the CPU) as one file, whole or not at all, under a name that no other process takes."""
    # The time comes first, so that of two entries of one key the newer is known.
    path = folder / f"{time.time_ns():020d}-{uuid4().hex[:12]}.safetensors"
    tensors = {f"{key}/{name}": value.contiguous() for key, entry in entries.items() for name, value in entry.items()}
    with replacing(path) as part:
        save_file(tensors, part, metadata={key: checksum(entry) for key, entry in entries.items()})
    return path
