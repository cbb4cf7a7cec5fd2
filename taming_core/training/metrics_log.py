"""The metrics of a training: metrics.jsonl, one line per step, and TensorBoard events if it is installed."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from taming_core.files import write_text
from taming_core.params.train import TrainParams
from taming_core.training.loop import StepReport

METRICS = "metrics.jsonl"

SPEED = "images_per_second"  # the only metric that is not reproducible
HELD_OUT = "held_out"  # the denoising loss of held-out rows

Metrics = Mapping[str, float | int | None]


class Log(Protocol):
    """Writes the metrics of one step, including `step`."""

    def __call__(self, figures: Metrics) -> None: ...


def step_metrics(report: StepReport, seconds: float, p: TrainParams, held_out: float | None = None) -> Metrics:
    """The metrics of a step that took this many seconds; `held_out` only where it was measured after the step."""
    rates = {"learning_rate": report.learning_rate, "grad_norm": report.grad_norm, SPEED: p.batch_size / seconds}
    measured = {} if held_out is None else {HELD_OUT: held_out}
    return {"step": report.step, **asdict(report.losses), **measured, **rates}


def last_metrics(folder: Path) -> dict[str, float | int | None]:
    """The metrics of the last step, without the speed."""
    return drop_speed((folder / METRICS).read_text(encoding="utf-8").splitlines()[-1])


def drop_speed(line: str) -> dict[str, float | int | None]:
    """The metrics of a line, without the speed.

    >>> drop_speed('{"step": 1, "images_per_second": 2.0}')
    {'step': 1}
    """
    return {name: value for name, value in json.loads(line).items() if name != SPEED}


@contextmanager
def open_metrics_log(folder: Path, step: int, enabled: bool = True) -> Generator[Log, None, None]:
    """Open the metrics of a run with `step` completed steps; metrics of later steps, of an aborted run, are removed."""
    if not enabled:
        yield log_nothing
        return
    truncate_after(folder, step)
    with (folder / METRICS).open("a", encoding="utf-8") as lines, tensorboard(folder, step) as event:

        def log(figures: Metrics) -> None:
            print(json.dumps(figures), file=lines, flush=True)
            event(figures)

        yield log


@contextmanager
def tensorboard(folder: Path, step: int) -> Generator[Log, None, None]:
    """Open TensorBoard events of a run with `step` completed steps; without the package nothing is written."""
    if find_spec("tensorboard") is None:
        yield log_nothing
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder), purge_step=step + 1)
    with writer as events:

        def log(figures: Metrics) -> None:
            for name, value in figures.items():
                if name != "step" and value is not None:
                    events.add_scalar(f"train/{name}", value, figures["step"])

        yield log


def log_nothing(figures: Metrics) -> None:
    """A log that writes nothing."""


def grid_name(step: int) -> str:
    """The file name of the validation grid after a step."""
    return f"grid-{step:06d}.png"


def truncate_after(folder: Path, step: int) -> None:
    """Keep the lines and grids of the first `step` steps; an incomplete line, from a crash, is removed."""
    for grid in folder.glob("grid-*.png"):
        if grid.name > grid_name(step):
            grid.unlink()
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))
