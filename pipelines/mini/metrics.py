"""The metrics.json of a stage."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taming_core.evaluation.statistics import estimate


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json beside the weights, rounded to four digits."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(rounded, indent=2) + "\n")


def with_interval(name: str, values: Sequence[float] | NDArray[Any], subjects: Sequence[str]) -> dict[str, float]:
    """The mean and its bootstrap interval over subjects: `name`, `name_low` and `name_high`."""
    result = estimate(np.asarray(values, np.float64), subjects, seed=0)
    return {name: result.mean, f"{name}_low": result.low, f"{name}_high": result.high}
