"""The memory that training needs, cached by params, models and package versions."""

import json
from contextlib import suppress
from pathlib import Path

from taming_core import fingerprints
from taming_core.files import read_json, write_json
from taming_core.fingerprints import digest
from taming_core.params.load import Params
from taming_core.weights.locate import cache_folder
from taming_core.weights.mini import MINI


def cached_memory_need(params: Params, processes: int = 1) -> float:
    """Bytes that training needs on each device, with the overhead of CUDA; `processes` share the denoiser's weights.

    Raises:
        TamingError: the configs of a model are not on this machine, or do not fit together.
    """
    path = cache_folder() / "memory" / f"{cache_key(params, processes)}.json"
    if path.is_file():
        return read_json(path)["bytes"]
    from taming_core.projects.memory import memory_need  # slow to import

    need = memory_need(params, processes).total
    with suppress(OSError):  # where the cache cannot be written it is computed every time
        write_json(path, {"bytes": need})
    return need


def cache_key(params: Params, processes: int = 1) -> str:
    """16 hex digits of all that the memory depends on: params, processes, packages and the configs of local models."""
    p = params.train
    texts = (
        str(processes),
        p.model_dump_json(),
        params.materialize.model_dump_json(),
        json.dumps(fingerprints.versions()),
    )
    specs = (p.start, p.base, p.encoder and p.encoder.tower, p.identity_network)
    folders = [MINI if spec == "mini" else Path(spec or "/dev/null").expanduser() for spec in specs]
    configs = (path for folder in folders for path in sorted(folder.rglob("*.json")))
    return digest([*(text.encode() for text in texts), *(f"{path}\0".encode() + path.read_bytes() for path in configs)])
