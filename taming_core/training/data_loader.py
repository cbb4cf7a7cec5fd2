"""Batches on time: made ahead by threads or processes, in pinned memory, and sent to the device in slices."""

import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taming_core.errors import TamingError
from taming_core.model.inputs import Batch
from taming_core.training.batches import BatchAt, ExampleSource, batch_at
from taming_core.training.distributed import ProcessGroup

CPU_FIELDS = ("cached",)  # fields of a batch that stay on the CPU, to be read without synchronization


def prefetched_batches(source: ExampleSource, processes: ProcessGroup, device: torch.device) -> BatchAt:
    """The batches of this process, made ahead by threads or processes, and in pinned memory for a GPU."""
    p = source.params
    make = partial(batch_at, source=source, share=processes.share(p.batch_size))
    workers = 0 if device.type == "cpu" else worker_processes()
    if workers < 2:
        return prefetch(pin_batches(device, make), p.steps, prefetch_depth(device))
    # One thread, which waits for the processes: they make batches in the order of steps.
    return prefetch(pin_batches(device, in_processes(make, p.steps, workers)), p.steps, 1)


def prefetch_depth(device: torch.device) -> int:
    """How many batches to prefetch, each in a thread: one if the device is the CPU, which also makes the batches."""
    return 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def worker_processes() -> int:
    """How many processes to make batches in: one for each core that the trainings on this machine do not use.

    0 where processes cannot be forked, since a spawned one would load all networks again.
    """
    if sys.platform != "linux":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, cores - 1)


class StepDataset(Dataset[Any]):
    """The batch of each step, or the user's error in it, which a DataLoader would wrap in a traceback."""

    def __init__(self, make: BatchAt) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Batch | TamingError:
        try:
            return self.make(step)
        except TamingError as error:
            return error


def in_processes(make: BatchAt, steps: int, count: int) -> BatchAt:
    """`make`, with `count` processes that make the batches of the next steps, up to step `steps` (exclusive).

    Threads share one interpreter, so that beyond two of them hardly add any. The first batch is made by this process.
    Batches pass through shared memory: where there is too little of it, this process makes all of them. So it does when
    one of the others is ended, for want of memory or by a signal to all processes of a job.
    """
    batches: Iterator[Any] = iter(())
    due = -1

    def batch_of(step: int) -> Batch:
        nonlocal batches, due
        if step == due:
            due += 1
            try:
                return checked(next(batches))
            except RuntimeError:  # of the DataLoader
                batches = map(make, range(due, steps))
                return make(step)
        first, due = make(step), step + 1
        fits = nbytes(first) * (2 * count + 1) < shared_memory()
        batches = iter(step_loader(make, range(due, steps), count)) if fits else map(make, range(due, steps))
        return first

    return batch_of


def step_loader(make: BatchAt, steps: range, count: int) -> DataLoader[Any]:
    """The batches of the steps, in their order, from `count` processes, which end with the iterator or this process."""
    return DataLoader(
        StepDataset(make), batch_size=None, sampler=steps, num_workers=count, collate_fn=as_it_is,
        multiprocessing_context="fork", worker_init_fn=without_threads,
    )  # fmt: skip


def as_it_is(batch: Any) -> Any:
    """The batch, which needs no collation."""
    return batch


def without_threads(_: int) -> None:
    """Let the tokenizers of a worker process use no threads, which do not survive a fork."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def checked(batch: Batch | TamingError) -> Batch:
    """The batch of a worker process; raises its TamingError."""
    if isinstance(batch, TamingError):
        raise batch
    return batch


def nbytes(batch: Batch) -> int:
    """The size of a batch."""
    return sum(v.nbytes for f in fields(Batch) if isinstance(v := getattr(batch, f.name), Tensor))


def shared_memory() -> int:
    """Free bytes of shared memory, of which containers have 64 MB by default."""
    return shutil.disk_usage("/dev/shm").free


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
