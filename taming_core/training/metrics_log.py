"""What a training writes down: metrics.jsonl, one line a step; the same for TensorBoard, where that is installed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from taming_core.files import write_text
from taming_core.params.train import TrainParams
from taming_core.training.loop import StepReport

METRICS = "metrics.jsonl"

SPEED = "images_per_second"  # the one figure that differs when the same training is done again

Metrics = Mapping[str, float | int | None]


class Log(Protocol):
    """Writes the figures of one step; `step` is among them."""

    def __call__(self, figures: Metrics) -> None: ...


def step_metrics(report: StepReport, seconds: float, p: TrainParams) -> Metrics:
    """The line of one step, which took so many seconds."""
    rates = {"learning_rate": report.learning_rate, "grad_norm": report.grad_norm, SPEED: p.batch_size / seconds}
    return {"step": report.step, **asdict(report.losses), **rates}


def last_metrics(folder: Path) -> dict[str, float | int | None]:
    """The figures of the last step, all but the speed."""
    return without_speed((folder / METRICS).read_text().splitlines()[-1])


def without_speed(line: str) -> dict[str, float | int | None]:
    """A line's figures, all but the speed.

    >>> without_speed('{"step": 1, "images_per_second": 2.0}')
    {'step': 1}
    """
    return {name: value for name, value in json.loads(line).items() if name != SPEED}


@contextmanager
def open_metrics_log(folder: Path, step: int, enabled: bool = True) -> Iterator[Log]:
    """Open the metrics of a run that stands at `step`; what an interrupted run wrote of later steps is taken back."""
    if not enabled:
        yield log_nothing
        return
    truncate_after(folder, step)
    with (folder / METRICS).open("a") as lines, tensorboard(folder, step) as event:

        def log(figures: Metrics) -> None:
            print(json.dumps(figures), file=lines, flush=True)
            event(figures)

        yield log


@contextmanager
def tensorboard(folder: Path, step: int) -> Iterator[Log]:
    """Open TensorBoard's events of a run that stands at `step`; without the package nothing is written."""
    if find_spec("tensorboard") is None:
        yield log_nothing
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=step + 1) as events:

        def log(figures: Metrics) -> None:
            for name, value in figures.items():
                if name != "step" and value is not None:
                    events.add_scalar(f"train/{name}", value, figures["step"])

        yield log


def log_nothing(figures: Metrics) -> None:
    """A log that writes nothing."""


def grid_name(step: int) -> str:
    """The file name of the validation pictures that were drawn after a step."""
    return f"grid-{step:06d}.png"


def truncate_after(folder: Path, step: int) -> None:
    """Keep lines and pictures of the first `step` steps; a line that was cut off by a crash is none."""
    for grid in folder.glob("grid-*.png"):
        if grid.name > grid_name(step):
            grid.unlink()
    path = folder / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))
