"""A few training steps of tiny models, as one of two processes runs them for tests/training/test_distributed.py."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import nn
from torch.distributed.fsdp._fully_shard import _fsdp_init
from torch.distributed.tensor import DTensor

from taming_core.errors import TamingError
from taming_core.model.subject_model import subject_model
from taming_core.params.train import TrainParams
from taming_core.tables.rows import load_rows
from taming_core.training import agreement, checkpoint, loop
from taming_core.training.batches import batch_at
from taming_core.training.distributed import ProcessGroup, join_process_group

Found = dict[str, Any]


def trained(
    folder: Path, injection: str, p: TrainParams, processes: ProcessGroup, shard: bool = False, stop: int = 0
) -> Found:
    """Losses and weights of a training, to its end or to step `stop`, where its state is saved."""
    model = subject_model(tiny.pipeline(injection).components)
    with device_watch(model.family.denoiser) as held:
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
    return {"reports": reports, "weights": weights, "held": held}


@contextmanager
def device_watch(denoiser: nn.Module) -> Generator[dict[str, int]]:
    """The most bytes of the denoiser that lie on the device at once, were it another than the CPU: what `to` moves
    there as a whole, or the shards there with the block that FSDP moves beside them."""
    to, move, held = nn.Module.to, _fsdp_init._move_states_to_device, {"most": 0, "block": 0}

    def whole(module: nn.Module, *given: Any, **more: Any) -> nn.Module:
        if module is denoiser and given and isinstance(given[0], torch.device):
            held["most"] = max(held["most"], sum(w.nbytes for w in denoiser.parameters()))
        return to(module, *given, **more)

    def block(params: list[nn.Parameter], *rest: Any) -> None:
        shards = sum(w.to_local().nbytes for w in denoiser.parameters() if isinstance(w, DTensor))
        moved = sum(w.nbytes for w in params if not isinstance(w, DTensor))
        held.update(most=max(held["most"], shards + moved), block=max(held["block"], moved))
        move(params, *rest)

    nn.Module.to, _fsdp_init._move_states_to_device = whole, block
    try:
        yield held
    finally:
        nn.Module.to, _fsdp_init._move_states_to_device = to, move


def disagreements(folder: Path, processes: ProcessGroup) -> Found:
    """What this process is told of inputs and disks that are the same in both, and of such that are not."""
    agreement.PATIENCE = 1.0
    checks = {
        "same": partial(agreement.require_same, {"rows": "a", "params": "b"}),
        "other rows": partial(agreement.require_same, {"params": "b", "rows": str(processes.rank)}),
        "one disk": partial(agreement.require_shared, folder / "runs"),
        "two disks": partial(agreement.require_shared, folder / f"disk{processes.rank}" / "runs"),
        "a file of one": partial(agreement.await_files, [folder / "missing"] if processes.is_main else []),
    }
    said = {name: message_of(check, processes) for name, check in checks.items()}
    return {**said, "max": processes.max(processes.rank)}


def message_of(check: Callable[[ProcessGroup], None], processes: ProcessGroup) -> str | None:
    try:
        check(processes)
    except TamingError as error:
        return str(error)
    return None


def main(folder: Path) -> None:
    """Do all that `asked.json` asks for, and write what is found."""
    torch.set_num_threads(1)
    accelerator = loop.accelerator_for("cpu", "fp32")
    processes = join_process_group(accelerator.process_index, accelerator.num_processes)
    found = {}
    for name, asked in json.loads((folder / "asked.json").read_text()).items():
        p = TrainParams.model_validate(asked.pop("p"))
        found[name] = trained(folder, p=p, processes=processes, **asked)
    found["agreement"] = processes.gather_objects(disagreements(folder, processes))
    if processes.is_main:
        torch.save(found, folder / "found.pt")
    processes.shutdown()
