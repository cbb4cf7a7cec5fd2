"""A few training steps of tiny models, as one of two processes runs them for tests/training/test_distributed.py."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch

from taming_core.model.subject_model import subject_model
from taming_core.params.train import TrainParams
from taming_core.tables.rows import load_rows
from taming_core.training import checkpoint, loop
from taming_core.training.batches import batch_at
from taming_core.training.distributed import ProcessGroup, join_process_group

Found = dict[str, Any]


def trained(
    folder: Path, injection: str, p: TrainParams, processes: ProcessGroup, shard: bool = False, stop: int = 0
) -> Found:
    """Losses and weights of a training, to its end or to step `stop`, where its state is saved."""
    model = subject_model(tiny.pipeline(injection).components)
    run = loop.start_run(model, None, loop.accelerator_for("cpu", p.precision), p, processes, shard)
    checkpoint.load(run, folder / "state")
    source = tiny.source(load_rows(folder / "rows", "train"), p, injection)
    make = partial(batch_at, source=source, share=processes.share(p.batch_size))
    reports = []
    for report in loop.train(run, p, make):
        reports.append((report.losses.loss, report.grad_norm))
        if report.step == stop:
            checkpoint.save(run, folder / "state")
            break
    weights = {f"{part}/{n}": w for part, named in loop.trained_weights(run).items() for n, w in named.items()}
    return {"reports": reports, "weights": weights}


def main(folder: Path) -> None:
    """Do all that `asked.json` asks for, and write what is found."""
    torch.set_num_threads(1)
    accelerator = loop.accelerator_for("cpu", "fp32")
    processes = join_process_group(accelerator.process_index, accelerator.num_processes)
    found = {}
    for name, asked in json.loads((folder / "asked.json").read_text()).items():
        p = TrainParams.model_validate(asked.pop("p"))
        found[name] = trained(folder, p=p, processes=processes, **asked)
    if processes.is_main:
        torch.save(found, folder / "found.pt")
    processes.shutdown()
