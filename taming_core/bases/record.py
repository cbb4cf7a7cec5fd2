"""The base of an encoder folder that holds only what was trained: which model has the other components.

The record is the key `_base` of model_index.json, which names every component: the base's name, its revision on the
hub, and a digest of the weights of each network that comes from it. A local base is recorded by its relative path or by
its last component, never by an absolute path; this machine remembers in its cache folder where it was.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter

from taming_core.bases.family import tokenizer_of
from taming_core.bases.load import Dtypes, folder_of, load_base
from taming_core.bases.placeholder import add_placeholder_token, placeholder_embedding
from taming_core.errors import TamingError
from taming_core.files import read_text, write_text
from taming_core.fingerprints import digest
from taming_core.weights.digests import weights_digest
from taming_core.weights.locate import cache_folder, find_on_disk, is_hub_name, weights_folder

KEY = "_base"  # of model_index.json
EMBEDDINGS = "placeholder.safetensors"  # the embedding of `<object>` by the text encoder's name
MINI = "mini"


@dataclass(frozen=True)
class BaseRecord:
    """The model that has the components which an encoder folder lacks."""

    name: str  # a folder or a hub name
    revision: str | None  # the commit on the hub; None for a folder
    weights: Mapping[str, str]  # a digest for each network that comes from it

    @property
    def text_encoders(self) -> list[str]:
        """The names of the text encoders that come from it, each with its tokenizer."""
        return [name for name in self.weights if name.startswith("text_encoder")]


def record_of(index: Mapping[str, Any]) -> BaseRecord | None:
    """The record in a model_index.json; None if the folder holds all components."""
    return BaseRecord(**index[KEY]) if KEY in index else None


def entry_of(record: BaseRecord) -> dict[str, Any]:
    """The inverse of `record_of`: the entry of model_index.json."""
    return {KEY: asdict(record)}


def new_record(spec: str, parts: Mapping[str, Any]) -> BaseRecord:
    """The record of a base that has just been loaded; for a folder this machine remembers where it is."""
    folder = folder_of(spec)
    found = {name: weights_digest(folder / name) for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    on_hub = spec != MINI and not Path(spec).is_dir()
    record = BaseRecord(portable_name(spec), folder.name if on_hub else None, {n: d for n, d in found.items() if d})
    remember(record, spec)
    return record


def portable_name(spec: str) -> str:
    """The name of a model for files that others read: an absolute path, or one in a home folder, by its last component.

    >>> portable_name("models/sdxl"), portable_name("/models/sdxl"), portable_name("~/sdxl")
    ('models/sdxl', 'sdxl', 'sdxl')
    """
    return Path(spec).name if Path(spec).expanduser().is_absolute() else spec


def base_parts(folder: Path, record: BaseRecord, base: str | None, dtype: Dtypes) -> dict[str, Any]:
    """The components of an encoder folder that its base has, with the folder's embedding of `<object>`.

    Args:
        folder: of the encoder.
        record: its record.
        base: the base's folder or hub name; None for the recorded one.
        dtype: of the weights.

    Raises:
        TamingError: there is no such base, or it has other weights.
    """
    spec, tokenizers = base or find_base(folder, record), map(tokenizer_of, record.text_encoders)
    try:
        parts = load_base(spec, dtype, [*record.weights, *tokenizers], None if base else record.revision)
    except TamingError as error:
        raise TamingError(missing_base(folder, spec)) from error
    require_same_weights(folder, record, spec, None if base else record.revision)
    remember(record, spec)
    rows = load_file(folder / EMBEDDINGS)
    for name in record.text_encoders:
        add_placeholder_token(parts[tokenizer_of(name)], parts[name])
        placeholder_embedding(parts[tokenizer_of(name)], parts[name]).copy_(rows[name])
    return parts


def find_base(folder: Path, record: BaseRecord) -> str:
    """Where the base is: as named, beside the encoder, among the weights, or where this machine last had it."""
    known = remembered(record)
    found = find_on_disk(record.name, folder.parent) or (Path(read_text(known)) if known.is_file() else None)
    return str(found) if found is not None and found.is_dir() else record.name


def missing_base(folder: Path, spec: str) -> str:
    """The error message for a base that is not on this machine."""
    fetch = f"Run `hf download {spec}`" if is_hub_name(spec) else f"Put it into {weights_folder()}"
    return f"{folder} was trained on the base {spec}, which was not found. {fetch}, or name its folder with --base."


def require_same_weights(folder: Path, record: BaseRecord, spec: str, revision: str | None) -> None:
    """Raises TamingError if a network of the base has other weights than the one that the encoder was trained on."""
    place = folder_of(spec, revision)
    for name, expected in record.weights.items():
        if weights_digest(place / name) != expected:
            raise TamingError(f"The weights of {name} in the base {spec} are not those that {folder} was trained on. "
                              f"Name the right one with --base; it is called {record.name}.")  # fmt: skip


def remember(record: BaseRecord, spec: str) -> None:
    """Keep in this machine's cache where the folder of a base is."""
    if spec != MINI and Path(spec).expanduser().is_dir():
        with suppress(OSError):
            write_text(remembered(record), str(Path(spec).expanduser().resolve()))


def remembered(record: BaseRecord) -> Path:
    """The file that says where the base is."""
    return cache_folder() / "bases" / digest(f"{name}\0{d}\0".encode() for name, d in sorted(record.weights.items()))
