"""Whether an encoder folder is whole, without loading it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from taming_core.bases.record import record_of
from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.weights.mini import encoder_folder

CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "vocab.json", "preprocessor_config.json")
WEIGHTS = (".safetensors", ".bin")


def require_encoder(spec: str) -> Path:
    """The folder of an encoder, with every component that it should hold and no damaged weights.

    Args:
        spec: `mini`, or a folder.

    Raises:
        TamingError: there is no encoder, or it lacks something; the message names it.
    """
    folder = encoder_folder(spec)
    if (problem := next(_problems(folder), None)) is not None:
        raise TamingError(f"{folder} is no whole encoder: {problem}. Copy it again, or name another one.")
    return folder


def _problems(folder: Path) -> Iterator[str]:
    index: Any = read_json(folder / "model_index.json")
    if not isinstance(index, dict):
        yield "model_index.json names no components"
        return
    kinds = cast(dict[str, Any], index)
    named = {name for name, kind in kinds.items() if isinstance(kind, list) and cast(list[Any], kind)[:1] != [None]}
    # An encoder of a named base holds what was trained; the base has the other components.
    expected = {"object_encoder"} | (named if record_of(kinds) is None else set[str]())
    for part in sorted(expected):
        if not any((folder / part / config).is_file() for config in CONFIGS):
            yield f"{part} is missing"
        elif not part.startswith(("scheduler", "tokenizer", "feature")) and not _has_weights(folder / part):
            yield f"{part} has no weights"
    for file in sorted(folder.rglob("*.safetensors")):
        if not _opens(file):
            yield f"{file.relative_to(folder)} is damaged"


def _has_weights(folder: Path) -> bool:
    return any(file.suffix in WEIGHTS for file in folder.iterdir())


def _opens(file: Path) -> bool:
    """Whether the header of a weights file can be read, and the file is as long as it says."""
    try:
        with safe_open(file, "pt"):
            return True
    except (OSError, SafetensorError):
        return False
