"""Reading params.yaml into frozen, strict sections, one per stage."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from taming_core.errors import TamingError
from taming_core.files import read_text
from taming_core.params.baseline import BaselineParams
from taming_core.params.caption import CaptionParams
from taming_core.params.sections import (
    DetectParams,
    EvaluateParams,
    GenerateParams,
    MaterializeParams,
    Section,
    WorldParams,
)
from taming_core.params.train import TrainParams

# Keys and values renamed in 0.1.0: old -> new.
RENAMED_KEYS = {"train.stand_in": "train.augmentation", "train.general": "train.regularization"}
RENAMED_VALUES = {("train.captions", "plain"): "class_noun"}


class Params(Section):
    """All of params.yaml."""

    detect: DetectParams
    caption: CaptionParams
    materialize: MaterializeParams
    train: TrainParams
    evaluate: EvaluateParams
    generate: GenerateParams
    baseline: BaselineParams
    world: WorldParams


def packaged_params() -> Path:
    """The default params.yaml: in the package if installed, at the top of the repository in a checkout."""
    installed = Path(__file__).parent / "params.yaml"
    return installed if installed.exists() else Path(__file__).parents[2] / "params.yaml"


def load_params(path: Path | None = None) -> Params:
    """Read and check the params; the default path is ./params.yaml, else the packaged file.

    Raises:
        TamingError: the file is missing or not YAML, or a key is wrong; the message names it and the valid values.
    """
    if path is None:
        path = Path("params.yaml") if Path("params.yaml").is_file() else packaged_params()
    if not path.is_file():
        raise TamingError(f"{path} does not exist. Copy {packaged_params()} there, or name another with --params.")
    try:
        # YAML 1.2, as DVC reads and writes it: `dvc exp run -S` leaves 1e-05, which YAML 1.1 reads as a string.
        yaml: Any = YAML(typ="safe", pure=True)  # partly untyped
        values = yaml.load(read_text(path))
    except YAMLError as error:
        raise TamingError(f"{path} is not YAML: {' '.join(str(error).split())}. Correct it.") from error
    if not isinstance(values, dict):
        content = "is empty" if values is None else "has no sections of keys"
        raise TamingError(f"{path} {content}. Copy {packaged_params()} there, and change its values.")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise TamingError(f"{path}: {_explain(error)}. Correct the key and run the command again.") from error


def _explain(error: ValidationError) -> str:
    """The first error, with the full name of its key."""
    errors = [(".".join(str(part) for part in e["loc"]), e) for e in error.errors()]
    for key, e in errors:
        if e["type"] == "extra_forbidden" and key in RENAMED_KEYS:
            return f"{key} is called {RENAMED_KEYS[key]} since version 0.1.0"
        if (new := RENAMED_VALUES.get((key, str(e["input"])))) is not None:
            return f"{key} {e['input']} is called {new} since version 0.1.0"
    key, first = errors[0]
    if first["type"] == "value_error":
        return str(first.get("ctx", {})["error"])
    if first["type"] == "extra_forbidden":
        return f"{key} is not a known key; known here: {', '.join(_known_keys(first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key} is {first['input']!r}: {first['msg'].lower()}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at `location`."""
    section: Any = Params
    for part in location:
        kind = section.model_fields[part].annotation
        options = [kind, *getattr(kind, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(section.model_fields)
