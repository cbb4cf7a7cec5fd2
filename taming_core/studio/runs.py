"""The runs of a project as its tab Train shows them: metrics, validation grids, whether one trains now."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from taming_core.errors import TamingError
from taming_core.figures.curves import smooth
from taming_core.files import read_json

METRICS, SETTINGS = "metrics.jsonl", "settings.json"
MAX_POINTS = 500  # of a curve
Line = Mapping[str, float | None]


class Run(NamedTuple):
    """A training: the folder of its state below runs/, or of an encoder whose state is gone."""

    name: str
    folder: Path
    grids: Path
    params: Mapping[str, Any]  # train's; empty if they are not recorded

    @property
    def is_training(self) -> bool:
        """Whether a process of this machine trains it now."""
        holder = self.folder.parent / f".{self.folder.name}.holder.json"
        with suppress(OSError, ValueError, TamingError):
            named = read_json(holder)
            return named["host"] == platform.node() and psutil.pid_exists(named["pid"])
        return False


def runs(project: Path) -> list[Run]:
    """The runs of a project, the last begun or written first."""
    states = [Run(f.parent.name, f.parent, f.parent, _params(f.parent / SETTINGS, "train"))
              for f in (project / "runs").glob(f"train-*/{METRICS}")]  # fmt: skip
    known = {run.name for run in states}
    encoders = [
        f.parent for pattern in ("data/*", "out/*", "out/*/*") for f in project.glob(f"{pattern}/training.json")
    ]
    finished = [Run(f.relative_to(project).as_posix(), f, f / "validation", _params(f / "training.json"))
                for f in encoders if (f / METRICS).is_file() and _run_of(f) not in known]  # fmt: skip
    return sorted([*states, *finished], key=lambda run: _changed(run.folder / METRICS), reverse=True)


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _params(file: Path, section: str | None = None) -> Mapping[str, Any]:
    with suppress(OSError, ValueError, KeyError, TamingError):
        params = read_json(file)["params"]
        return params if section is None else params[section]
    return {}


def _run_of(encoder: Path) -> str | None:
    with suppress(OSError, ValueError, TamingError):
        return read_json(encoder / "training.json").get("run")
    return None


def metrics(run: Run) -> tuple[Line, ...]:
    """The metrics of every step that is complete; none of a run that has none yet."""
    with suppress(OSError):
        stat = (run.folder / METRICS).stat()
        return _read(run.folder / METRICS, stat.st_size, stat.st_mtime_ns)
    return ()


@lru_cache(8)
def _read(path: Path, _size: int, _changed: int) -> tuple[Line, ...]:
    """The lines of a file; the last one may be half written."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines if line.startswith("{") and line.endswith("}"))


def curve(lines: Sequence[Line], key: str) -> list[tuple[float, float]]:
    """A metric over steps, smoothed where there are many, at most `MAX_POINTS` points.

    >>> curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 1.0}], "loss")
    [(1, 2.0), (3, 1.0)]
    """
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    every = max(1, len(points) // MAX_POINTS)
    values = smooth([value for _, value in points], 1 if key == "learning_rate" else 1 + len(points) // 50)
    smoothed = [(step, value) for (step, _), value in zip(points, values, strict=True)]
    return smoothed[::every] + (smoothed[-1:] if (len(points) - 1) % every else [])  # pyright: ignore[reportReturnType]


def grids(run: Run) -> list[tuple[int, Path]]:
    """The validation grids of a run with their steps, in order."""
    found = ((re.fullmatch(r"grid-(\d+)\.png", path.name), path) for path in run.grids.glob("grid-*.png"))
    return sorted((int(match[1]), path) for match, path in found if match)


def state(run: Run) -> str:
    """How far a run is, in words."""
    lines = metrics(run)
    step, steps = (lines[-1]["step"] if lines else 0), run.params.get("steps")
    of = f"step {step}" + (f" of {steps}" if steps else "")
    if run.is_training:
        return f"{of}, training now"
    return f"{of}, finished" if step == steps else f"{of}, stopped"
