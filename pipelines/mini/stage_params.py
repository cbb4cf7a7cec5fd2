"""The sections of params.yaml and the default folders of the stages."""

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from ruamel.yaml import YAML

from taming_core.errors import TamingError
from taming_core.weights.mini import BASE, MINI

HERE = Path(__file__).parent
PARAMS = HERE / "params.yaml"
OUT = Path("out/mini")  # default outputs; only `ship` and `card --ship` write into the package
WORLD = MINI / "world"

S = TypeVar("S", bound=BaseModel)


class Section(BaseModel):
    """One section of params.yaml; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingParams(Section):
    """Hyperparameters that all trainings share."""

    seed: int
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat  # peak, after warm-up
    warmup: NonNegativeInt  # steps
    weight_decay: NonNegativeFloat
    ema: float = Field(ge=0, lt=1)  # decay of the exponential moving average of weights; 0 keeps the last weights
    save_every: PositiveInt  # steps


def load_section(kind: type[S], name: str, path: Path = PARAMS) -> S:
    """Read and validate one section of params.yaml; raises pydantic's error, which names the key."""
    content: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return kind.model_validate(content[name])


def require_outside_package(out: Path) -> Path:
    """Return an output path; raises TamingError if it lies among the shipped weights."""
    if any(out.resolve().is_relative_to(folder.resolve()) for folder in (MINI, BASE)):
        raise TamingError(
            f"{out} is among the shipped weights. Write below {OUT} and run `python -m pipelines.mini.ship`."
        )
    return out


def file_digest(path: Path) -> str:
    """A digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
