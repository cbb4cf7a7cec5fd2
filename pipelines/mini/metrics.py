"""The metrics.json of a stage."""

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json beside the weights, rounded to four digits."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


def with_interval(
    name: str, values: Sequence[float] | NDArray[Any], subjects: Sequence[Any] | NDArray[Any]
) -> dict[str, float]:
    """The mean and its interval over subjects: `name`, `name_low` and `name_high`."""
    x = np.asarray(values, np.float64)
    shares = len(x) > 0 and x.min() >= 0 and x.max() <= 1  # most metrics are; an interval goes no further
    low, high = (0.0, 1.0) if shares else (-inf, inf)
    return _entries(name, estimate_mean(x, subjects, low=low, high=high))


def share_with_interval(
    name: str, values: Sequence[bool] | NDArray[Any], subjects: Sequence[Any] | NDArray[Any]
) -> dict[str, float]:
    """As `with_interval`, for the share of values that are true."""
    return _entries(name, estimate_share(np.asarray(values, np.float64), subjects))


def _entries(name: str, e: Estimate) -> dict[str, float]:
    return {name: e.mean, f"{name}_low": e.low, f"{name}_high": e.high}
