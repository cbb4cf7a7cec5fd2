"""Train tiny models with and without compiled blocks, in a process of its own: dynamo does not trace type checks."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch
from accelerate.state import AcceleratorState
from tiny_runs import begun, steps
from torch._dynamo.testing import CompileCounterWithBackend

from taming_core.training import loop
from taming_core.training.compilation import compile_blocks, transformer_blocks, uncompiled

ADAPTER = {"tune": "adapter", "denoiser_rate": 0.0}
LORA = {"tune": "lora", "lora": {"rank": 2, "alpha": 4.0}}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("decoupled", {**LORA, "gradient_checkpointing": True}),
    "adapter": ("gated", {"precision": "bf16", **ADAPTER}),
}


def losses(folder: Path, injection: str, **values: Any) -> list[float]:
    p = tiny.train_params(steps=4, micro_batch_size=4, regularization=0.0, object_drop=0.0, **values)
    return [report.losses.loss for report in steps(begun(p, injection), p, folder, 4)]


def counted() -> Any:
    """Let training trace forward and backward without code generation; counts what is compiled."""
    torch._dynamo.reset()
    AcceleratorState._reset_state(reset_partial_state=True)  # pyright: ignore  (each run has its own precision)
    counter = CompileCounterWithBackend("aot_eager")
    loop.compile_blocks = partial(compile_blocks, backend=counter)
    return counter


def compare(folder: Path, name: str) -> dict[str, Any]:
    injection, values = RUNS[name]
    counter = counted()
    plain, before = losses(folder, injection, **values), counter.frame_count
    compiled = losses(folder, injection, compile=True, **values)
    blocks = len(transformer_blocks(tiny.unet()))
    return {"plain": plain, "compiled": compiled, "before": before, "count": counter.frame_count, "blocks": blocks}


@torch.no_grad()
def grid() -> dict[str, int]:
    """What is compiled within `uncompiled`, and then."""
    counter, p = counted(), tiny.train_params(compile=True, **ADAPTER)
    denoiser = begun(p, "decoupled").model.family.denoiser
    inputs = torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 32, 16)
    with uncompiled(p):
        denoiser(*inputs)
    within = counter.frame_count
    denoiser(*inputs)
    return {"within": within, "then": counter.frame_count}


if __name__ == "__main__":
    rows = Path(sys.argv[1])
    if sys.argv[2:] == ["inductor"]:
        found: dict[str, Any] = {"plain": losses(rows, "decoupled", **ADAPTER)}
        found["compiled"] = losses(rows, "decoupled", compile=True, **ADAPTER)
    else:
        found = {**{name: compare(rows, name) for name in RUNS}, "grid": grid()}
    (rows / "found.json").write_text(json.dumps(found))
