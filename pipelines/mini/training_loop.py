"""The training loop of every model of `mini`: resumable, and a function of its params.

Each stage brings its network and a function from step to loss. No random state is saved: the photos of a step are a
function of (seed, step), so a run that was killed resumes to the same weights.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from pipelines.mini.metrics import write_metrics
from pipelines.mini.stage_params import PARAMS, Section, TrainingParams, require_outside_package
from pipelines.mini.train_state import TrainState, load_state, save_state
from taming_core.errors import TamingError
from taming_core.fingerprints import fingerprint
from taming_core.progress import track
from taming_core.seeds import seed_for
from taming_core.tables.shards import RUNS

SYNC_EVERY = 20  # steps on a GPU between reads of the loss; each read waits for the GPU
NO_EFFECT = frozenset({"save_every", "workers"})  # keys that change no weight

M = TypeVar("M")
Logs = dict[str, float] | dict[str, Tensor] | dict[str, float | Tensor]  # tensors of one number
LossAt = Callable[[int], tuple[Tensor, Logs]]  # step -> loss, and what is logged with it


@dataclass(frozen=True)
class Report:
    """The result of one step."""

    step: int  # completed
    loss: float
    logs: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Stage(Generic[M]):
    """What a stage passes to `train_and_measure`."""

    name: str
    build: Callable[[], M]  # a fresh model; torch's generator is seeded before
    train: Callable[[M, Path], Iterator[Report]]  # model, folder of the resumable state -> a report per step
    save: Callable[[M, Path], None]
    measure: Callable[[Path], dict[str, Any]] | None = None  # folder of weights -> metrics
    inputs: Callable[[], Sequence[str]] = tuple  # digests of the files it reads; other inputs, another state folder
    seed_name: str = ""  # of the fresh weights; by default NAME/weights
    log_size: bool = True  # write steps and batch size into metrics.json


def train_and_measure(stage: Stage[M], p: TrainingParams, out: Path, measure_only: Path | None = None) -> None:
    """Train, save and measure a model; with `measure_only` print the metrics of the weights in that folder instead.

    Raises:
        TamingError: `out` lies among the shipped weights.
    """
    if measure_only and stage.measure:
        print(json.dumps(stage.measure(measure_only), indent=2))
        return
    require_outside_package(out)
    torch.manual_seed(seed_for(p.seed, stage.seed_name or f"{stage.name}/weights", 0))
    model, state = stage.build(), state_folder(stage.name, p, *stage.inputs())
    run_with_progress(stage.train(model, state), stage.name, p.steps, state)
    stage.save(model, out)
    if stage.measure:
        size = {"steps": p.steps, "batch_size": p.batch_size} if stage.log_size else {}
        write_metrics(out, {**size, **stage.measure(out)})


def state_folder(stage: str, p: Section, *inputs: str) -> Path:
    """The folder of the resumable state of a training with these params and inputs; safe to delete."""
    return RUNS / f"mini-{stage}-{fingerprint(p, *inputs, without=NO_EFFECT)}"


def train(state: TrainState, loss_at: LossAt, p: TrainingParams, folder: Path) -> Iterator[Report]:
    """Train to the last step and save the state to `folder`; resumes from a state saved there.

    At the end the EMA weights are in place. On a GPU reports come SYNC_EVERY at a time.

    Raises:
        TamingError: a loss is not finite; no such state is saved.
    """
    load_state(state, folder)
    at_once, unread = reports_at_once(state), list[tuple[Tensor, Logs]]()
    start = time.perf_counter()
    for step in range(state.step, p.steps):
        unread.append(_update(state, loss_at, step, p))
        to_save = state.step % p.save_every == 0
        if len(unread) == at_once or to_save or state.step == p.steps:
            reports = _reports(unread, state.step, start)
            if to_save:
                save_state(state, folder)
            yield from reports
            unread, start = [], time.perf_counter()
    if state.ema:
        state.ema.copy_to(state.trained())


def reports_at_once(state: TrainState) -> int:
    """How many steps run before their losses are read."""
    return SYNC_EVERY if any(w.is_cuda for w in state.modules.parameters()) else 1


def learning_rate_factor(step: int, p: TrainingParams) -> float:
    """Share of the peak rate at a step, counted from 0: linear warm-up, then cosine decay to zero."""
    if step < p.warmup:
        return (step + 1) / (p.warmup + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - p.warmup) / max(p.steps - p.warmup, 1))


def _update(state: TrainState, loss_at: LossAt, step: int, p: TrainingParams) -> tuple[Tensor, Logs]:
    """One optimizer step; returns the loss and logs, still on the device."""
    for group in state.optimizer.param_groups:
        group["lr"] = p.learning_rate * group["rate"] * learning_rate_factor(step, p)
    torch.manual_seed(seed_for(p.seed, "step", step))  # dropout, and noise drawn by the loss
    loss, logs = loss_at(step)
    loss.backward()
    trained = [w for group in state.optimizer.param_groups for w in group["params"]]
    nn.utils.clip_grad_norm_(trained, 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step = step + 1
    if state.ema:
        state.ema.step(state.trained())
    return loss.detach(), {k: v.detach() if isinstance(v, Tensor) else v for k, v in logs.items()}


def _reports(unread: list[tuple[Tensor, Logs]], last: int, start: float) -> list[Report]:
    """Reports of the steps up to `last`; raises TamingError at the first loss that is not finite."""
    losses = torch.stack([loss for loss, _ in unread]).tolist()  # waits for the device
    seconds = (time.perf_counter() - start) / len(unread)
    steps = range(last - len(unread) + 1, last + 1)
    for step, loss in zip(steps, losses, strict=True):
        if not math.isfinite(loss):
            raise TamingError(f"The loss is {loss} in step {step}. Lower the learning rate in {PARAMS}.")
    return [
        Report(step, loss, {k: float(v) for k, v in logs.items()}, seconds)
        for step, loss, (_, logs) in zip(steps, losses, unread, strict=True)
    ]


def run_with_progress(reports: Iterator[Report], stage: str, steps: int, folder: Path) -> None:
    """Run a training with a progress bar and append one line per step to metrics.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for r in track(reports, stage, steps):
            line = {"step": r.step, "loss": r.loss, **r.logs, "seconds": round(r.seconds, 4)}
            print(json.dumps(line), file=log, flush=True)


def save_half_precision(model: Any, folder: Path) -> None:
    """Save a float16 copy of a model in shards of at most 15 MB."""
    copy.deepcopy(model).half().save_pretrained(folder, max_shard_size="15MB")
