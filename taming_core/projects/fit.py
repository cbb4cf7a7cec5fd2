"""The memory that a training needs, computed once for the same params, models and packages, and then looked up."""

import json
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from taming_core import fingerprints
from taming_core.params.load import Params
from taming_core.weights.locate import cache_folder
from taming_core.weights.mini import MINI


def cached_memory_need(params: Params) -> float:
    """Bytes, with what a GPU's libraries take.

    Raises:
        TamingError: the configs of a model are not on this machine, or do not go together.
    """
    kept = cache_folder() / "memory" / f"{key(params)}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))["bytes"]
    from taming_core.projects.memory import memory_need  # imports all that trains

    found = memory_need(params).total
    with suppress(OSError):  # without a place to write it is computed again
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps({"bytes": found}), encoding="utf-8")
        part.replace(kept)
    return found


def key(params: Params) -> str:
    """16 hex digits of all that the memory depends on: params, packages and the configs of local models."""
    p = params.train
    digest = blake2b(digest_size=8)
    for said in (p.model_dump_json(), params.materialize.model_dump_json(), json.dumps(fingerprints.versions())):
        digest.update(said.encode())
    for spec in (p.start, p.base, p.encoder and p.encoder.tower, p.identity_network):
        folder = MINI if spec == "mini" else Path(spec or "/dev/null").expanduser()
        for path in sorted(folder.rglob("*.json")):
            digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()
