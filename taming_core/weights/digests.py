"""Digests of weights by the content of their files: each file is read once, and its digest cached on this machine."""

from contextlib import suppress
from pathlib import Path

from taming_core.files import read_json, write_text
from taming_core.fingerprints import digest, file_chunks
from taming_core.weights.locate import cache_folder

# The names under which diffusers and transformers save weights; a repository may hold other variants beside them.
STEMS = ("diffusion_pytorch_model", "model")

DIGITS = 16  # of a digest


def file_digest(path: Path) -> str:
    """16 hex digits of a file's content; it is read again only when it may have changed."""
    s = path.stat()  # of the file itself, where the hub's cache has a link
    state = f"{path.resolve()}\0{s.st_size}\0{s.st_mtime_ns}\0{s.st_ctime_ns}\0{s.st_ino}"
    record = cache_folder() / "digests" / digest([state.encode()])
    if record.is_file() and len(cached := record.read_text(encoding="utf-8")) == DIGITS:  # else cut off
        return cached
    found = digest(file_chunks(path))
    with suppress(OSError):  # where the cache cannot be written it is computed every time
        write_text(record, found)
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a network, those that `from_pretrained` loads: one, or the shards of an index."""
    for stem in STEMS:
        if (index := folder / f"{stem}.safetensors.index.json").is_file():
            return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
        if (single := folder / f"{stem}.safetensors").is_file():
            return [single]
    return []


def weights_digest(folder: Path) -> str | None:
    """16 hex digits that change with any weight of the network in a folder; None if it holds no weights."""
    files = weight_files(folder)
    return digest(file_digest(path).encode() for path in files) if files else None
