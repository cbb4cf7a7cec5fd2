"""How networks are built, without their weights: from a model's own configs, or for well-known ones ours."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from taming_core.errors import TamingError

Config = dict[str, Any]

KNOWN = Path(__file__).parent / "configs"
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "object_encoder")
SCHEDULER = "scheduler"


def known(spec: str) -> Path:
    """The file of our own that tells of the model of this hub name; it need not exist."""
    return KNOWN / f"{spec.replace('/', '--')}.json"


def read(spec: str, file: str) -> Config | None:
    """A JSON file of a folder, or of a hub repository that was fetched before; None where there is none."""
    if Path(spec).is_dir():
        path = Path(spec) / file
        return json.loads(path.read_text()) if path.is_file() else None
    try:
        found = try_to_load_from_cache(spec, file)
    except ValueError:  # no hub name, says huggingface_hub
        return None
    return json.loads(Path(found).read_text()) if isinstance(found, str) else None


def pipeline_configs(spec: str) -> dict[str, Config]:
    """The config of every part of a text-to-image model, or of the folder of an encoder, by the part's name.

    Raises:
        TamingError: its configs are not on this machine.
    """
    files = {name: f"{name}/config.json" for name in NETWORKS} | {SCHEDULER: "scheduler/scheduler_config.json"}
    found = {name: config for name, file in files.items() if (config := read(spec, file)) is not None}
    if found:
        return found
    return _ours(spec, "train.base")


def vision_config(spec: str, key: str) -> Config:
    """The config of a vision tower; `spec` is a folder or a hub name, and `key` names it in params.yaml.

    Raises:
        TamingError: it is not on this machine.
    """
    config = read(spec, "config.json") or _ours(spec, key)
    if "tower" in config:  # of an object encoder
        return config["tower"]
    return config.get("vision_config", config)


def _ours(spec: str, key: str) -> Config:
    if not known(spec).is_file():
        raise TamingError(f"{key} is {spec}, whose configs are not on this machine. Run `hf download {spec}`, or name "
                          "a folder.")  # fmt: skip
    return json.loads(known(spec).read_text())
