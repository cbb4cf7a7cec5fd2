"""The configs of networks, without weights: from a model's own files, or for well-known models from bundled ones."""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from taming_core.bases.record import find_base, record_of
from taming_core.errors import TamingError
from taming_core.files import read_json

Config = dict[str, Any]

BUNDLED = Path(__file__).parent / "configs"
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "object_encoder")
SCHEDULER = "scheduler"


def bundled_config(spec: str) -> Path:
    """The path of the bundled configs of a hub name; it need not exist."""
    return BUNDLED / f"{spec.replace('/', '--')}.json"


def read_config(spec: str, file: str) -> Config | None:
    """A JSON file of a folder, or of a hub repository in the local cache; None if there is none."""
    if Path(spec).is_dir():
        path = Path(spec) / file
        return read_json(path) if path.is_file() else None
    try:
        cached = try_to_load_from_cache(spec, file)
    except ValueError:  # huggingface_hub: not a repository name
        return None
    return read_json(Path(cached)) if isinstance(cached, str) else None


def pipeline_configs(spec: str) -> dict[str, Config]:
    """The config of every component of a text-to-image model or an encoder folder, by the component's name.

    Raises:
        TamingError: its configs are not on this machine.
    """
    files = {name: f"{name}/config.json" for name in NETWORKS} | {SCHEDULER: "scheduler/scheduler_config.json"}
    configs = {name: config for name, file in files.items() if (config := read_config(spec, file)) is not None}
    record = record_of(read_config(spec, "model_index.json") or {})
    if record is not None:  # an encoder folder with only what was trained
        base = pipeline_configs(find_base(Path(spec), record))
        configs = {name: base[name] for name in record.weights} | configs
    return configs or _read_bundled(spec, "train.base")


def vision_config(spec: str, key: str) -> Config:
    """The config of a vision tower; `spec` is a folder or a hub name, and `key` names it in params.yaml.

    Raises:
        TamingError: it is not on this machine.
    """
    config = read_config(spec, "config.json") or _read_bundled(spec, key)
    if "tower" in config:  # of an object encoder
        return config["tower"]
    return config.get("vision_config", config)


def _read_bundled(spec: str, key: str) -> Config:
    if not bundled_config(spec).is_file():
        raise TamingError(f"{key} is {spec}, whose configs are not on this machine. Run `hf download {spec}`, or name "
                          "a folder.")  # fmt: skip
    return read_json(bundled_config(spec))
