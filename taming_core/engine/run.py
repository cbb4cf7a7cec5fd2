"""Which engine makes the shards of a table."""

import os
from collections.abc import Generator
from typing import TypeVar

from taming_core.engine import local
from taming_core.engine.work import ShardDone, ShardWork
from taming_core.params.engine import EngineOptions

S = TypeVar("S")
R = TypeVar("R")

FEW = 1000  # sources that are prepared sooner than worker processes have started
MOST = 16  # of them keep any one GPU busy


def run(work: ShardWork[S, R], options: EngineOptions) -> Generator[ShardDone]:
    """Make the shards that are missing with the engine of the options, and yield all."""
    if options.engine == "ray":
        from taming_core.engine import on_ray  # Ray takes a second to import

        return on_ray.run(work, options)
    workers = automatic_workers(len(work.sources)) if options.workers is None else options.workers
    return local.run(work, workers)


def automatic_workers(sources: int) -> int:
    """How many processes prepare sources, where the options do not say it: a core is left for the models.

    >>> automatic_workers(999)
    0
    """
    return 0 if sources < FEW else min(max(cores() - 1, 1), MOST)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
