"""Encoders in object stores, copied to this machine before they are used."""

import json
from pathlib import Path

from upath import UPath

from taming_core.errors import TamingError
from taming_core.files import replacing_folder
from taming_core.fingerprints import digest
from taming_core.storage.cache import cache_dir
from taming_core.storage.commit import committed
from taming_core.storage.filesystem import explaining, filesystem, object_state
from taming_core.storage.paths import as_path
from taming_core.tables.shards import RUNS


def local_encoder(spec: str) -> str:
    """The encoder of a URL as a folder of this machine, which is kept and used again; any other name unchanged.

    Raises:
        TamingError: there is no encoder at the URL, or it is half replaced.
    """
    path = as_path(spec)
    if isinstance(path, Path):
        return spec
    states = {name: object_state(info) for name, info in sorted(committed(path).items())}
    if "model_index.json" not in states:
        raise TamingError(f"{spec} holds no encoder. Run `taming train` first, or name `mini` or another folder.")
    kept = (cache_dir() or RUNS) / "encoders" / digest([json.dumps([spec, states]).encode()]) / path.name
    if not kept.is_dir():
        with replacing_folder(kept) as part:
            _fetch(path, list(states), part)
    return str(kept)


def _fetch(folder: UPath, names: list[str], part: Path) -> None:
    for name in names:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
    with explaining(folder):
        filesystem(folder).get([(folder / name).path for name in names], [str(part / name) for name in names])
