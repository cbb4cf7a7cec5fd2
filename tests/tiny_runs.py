"""Training runs of tiny models: begin one, train some steps, and its state."""

from functools import partial
from pathlib import Path

import tiny
from torch import Tensor

from taming_core.model.subject_model import subject_model
from taming_core.params.train import TrainParams
from taming_core.tables.rows import load_rows
from taming_core.training import checkpoint, loop
from taming_core.training.batches import batch_at
from taming_core.training.identity import IdentityNetwork


def begun(p: TrainParams, injection: str, identity: IdentityNetwork | None = None) -> loop.Run:
    model = subject_model(tiny.pipeline(injection).components)
    return loop.start_run(model, identity, loop.accelerator_for("cpu", p.precision), p)


def steps(run: loop.Run, p: TrainParams, folder: Path, until: int) -> list[loop.StepReport]:
    """Train to the end of step `until`, whatever the params say of the end."""
    injection = run.model.object_encoder.config["injection"]
    make = partial(batch_at, source=tiny.source(load_rows(folder, "train"), p, injection))
    found = []
    for report in loop.train(run, p, make):
        found.append(report)
        if report.step == until:
            break
    return found


def state(run: loop.Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in checkpoint.run_tensors(run)}
