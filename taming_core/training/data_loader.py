"""Batches on time: made ahead by threads, in pinned memory, and sent to the device in slices."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from taming_core.model.inputs import Batch
from taming_core.training.batches import BatchAt, ExampleSource, batch_at
from taming_core.training.distributed import ProcessGroup

CPU_FIELDS = ("cached",)  # fields of a batch that stay on the CPU, to be read without synchronization


def prefetched_batches(source: ExampleSource, processes: ProcessGroup, device: torch.device) -> BatchAt:
    """The batches of this process, made ahead by threads, and in pinned memory for a GPU."""
    p = source.params
    make = partial(batch_at, source=source, share=processes.share(p.batch_size))
    return prefetch(pin_batches(device, make), p.steps, prefetch_depth(device))


def prefetch_depth(device: torch.device) -> int:
    """How many batches to prefetch, each in a thread: one if the device is the CPU, which also makes the batches."""
    return 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def prefetch(make: BatchAt, steps: int, depth: int) -> BatchAt:
    """`make`, with threads that prefetch the next `depth` batches, up to step `steps` (exclusive)."""
    pool = ThreadPoolExecutor(depth)
    waiting: deque[tuple[int, Future[Batch]]] = deque()

    def batch_of(step: int) -> Batch:
        while waiting and waiting[0][0] != step:  # a jump: drop batches of other steps
            waiting.popleft()[1].cancel()
        if not waiting:
            waiting.append((step, pool.submit(make, step)))
        last = waiting[-1][0]
        waiting.extend((n, pool.submit(make, n)) for n in range(last + 1, min(step + depth + 1, steps)))
        return waiting.popleft()[1].result()

    return batch_of


def pin_batches(device: torch.device, batch_at: BatchAt) -> BatchAt:
    """`batch_at` with pinned memory for a GPU."""
    return (lambda step: pin_memory(batch_at(step))) if device.type == "cuda" else batch_at


def pin_memory(batch: Batch) -> Batch:
    """The batch in pinned memory, except for `CPU_FIELDS`."""
    values = {f.name: getattr(batch, f.name) for f in fields(Batch)}
    pinned: Any = {n: v.pin_memory() if isinstance(v, Tensor) and n not in CPU_FIELDS else v for n, v in values.items()}
    return Batch(**pinned)


def batch_slice(batch: Batch, rows: slice, device: torch.device) -> Batch:
    """Some rows of a batch, on the device, except for `CPU_FIELDS`."""
    return Batch(**{f.name: field_slice(f.name, getattr(batch, f.name), rows, device) for f in fields(Batch)})


def field_slice(name: str, value: Any, rows: slice, device: torch.device) -> Any:
    """Some rows of one field of a batch."""
    if value is None:
        return None
    part = value[rows]
    return part.to(device, non_blocking=True) if isinstance(part, Tensor) and name not in CPU_FIELDS else part
