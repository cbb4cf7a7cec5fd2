"""The engine of a Ray cluster: Ray Data gives the shards to actors, each of which loads the models once.

A finished shard is final here too, and has the same bytes: an actor makes it by the functions of the local engine.
"""

import os
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from taming_core.engine import local
from taming_core.engine.nodes import NodeChecks, checks_of, node_name, require_same_node
from taming_core.engine.out_of_memory import halving
from taming_core.engine.quiet_ray import ray, ray_data, set_quiet_context
from taming_core.engine.ray_cluster import Pool, connected, pool
from taming_core.engine.work import ShardDone, ShardWork
from taming_core.engine.workers import Preparer, preparing
from taming_core.errors import TamingError
from taming_core.params.engine import EngineOptions
from taming_core.tables.shards import shard_path

S = TypeVar("S")
R = TypeVar("R")

TASKS = 100  # per actor, at least, as far as there are shards: all actors end at about the same time
LONGEST = 16  # shards per task, so that the driver's time per task does not count
DEATHS = 3  # of an actor at one shard, until that shard is the reason


def run(work: ShardWork[S, R], options: EngineOptions) -> Generator[ShardDone]:
    """Make the shards that are missing, and yield all: first those that are there, then others as they are finished.

    Args:
        work: the shards; its folder and inputs must be where all nodes of the cluster see them.
        options: of the engine.

    Raises:
        TamingError: there is no such cluster, a node of it cannot do the work, or what the models raise.
    """
    numbers, finished = range(work.sources.shard_count()), local.finished_shards(work)
    for number in finished:
        yield local.count_shard(work, number, work.sources.count(number))
    missing = [number for number in numbers if number not in finished]
    if missing:
        with connected(options.ray_address):
            yield from made(work, missing, options)


def made(work: ShardWork[S, R], missing: Sequence[int], options: EngineOptions) -> Generator[ShardDone]:
    """The shards that actors of the connected cluster make."""
    actors = pool(options, len(missing))
    tasks = split(missing, actors.actors)
    set_quiet_context()
    deaths = ray.remote(num_cpus=0, max_restarts=-1)(Attempts).remote()
    job = ActorJob(work, checks_of(work), workers_of(options, actors), actors.gpus == 0, deaths)
    results = (
        ray_data.from_items(tasks, override_num_blocks=len(tasks))
        .map_batches(
            ShardActor,
            fn_constructor_args=(job,),
            compute=ray_data.ActorPoolStrategy(
                min_size=actors.at_once, max_size=actors.actors, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
            batch_size=1,
        )
        .iter_batches(batch_size=None, prefetch_batches=0)
    )
    for batch in results:
        for pickled in batch["results"]:
            result = pickle.loads(pickled)
            if isinstance(result, Exception):
                raise result
            yield result


def split(missing: Sequence[int], actors: int) -> list[list[int]]:
    """The shards of each task.

    >>> split([0, 1, 5, 6], 2)
    [[0], [1], [5], [6]]
    >>> len(split(range(1000), 2)), len(split(range(100_000), 2))
    (200, 6250)
    """
    size = min(max(len(missing) // (TASKS * actors), 1), LONGEST)
    return [list(missing[start : start + size]) for start in range(0, len(missing), size)]


def workers_of(options: EngineOptions, actors: Pool) -> int:
    """The processes of an actor that prepare sources; at least one by default, so that a bad photo kills only that."""
    return max(1, int(actors.cpus) - 1) if options.workers is None else options.workers


class Attempts:
    """An actor of its own: how often another has begun each shard."""

    def __init__(self) -> None:
        """None has been begun."""
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """The number of times that the shard has been begun, this one included."""
        self.begun[number] += 1
        return self.begun[number]


@dataclass(frozen=True)
class ActorJob:
    """What every actor is given."""

    work: ShardWork[Any, Any]
    checks: NodeChecks
    workers: int
    without_gpu: bool
    attempts: Any  # handle of `Attempts`


class ShardActor:
    """Makes shards in a process of the cluster."""

    def __init__(self, job: ActorJob) -> None:
        """Load nothing yet: an error here would reach the driver without its message."""
        self.job, self.open = job, ExitStack()
        self.compute: Callable[..., Any] | None = None
        self.preparer: Preparer[Any, Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """The shards of one task, or the error that ended them, pickled."""
        return {"results": [pickle.dumps(result) for result in self.results([int(n) for n in batch["item"][0]])]}

    def results(self, numbers: list[int]) -> Iterator[ShardDone | Exception]:
        """Each shard as it is finished; after an error no more."""
        try:
            yield from self.make(numbers)
        except Exception as error:
            if not isinstance(error, TamingError | OSError):
                error.add_note(f"On {node_name()}:\n{traceback.format_exc()}")
            yield error

    def make(self, numbers: list[int]) -> Iterator[ShardDone]:
        """The shards, made or counted.

        Raises:
            TamingError: this node cannot make them, or one of them kills its actor.
        """
        work, preparer = self.job.work, self.preparing()
        missing = numbers
        if ray.get_runtime_context().was_current_actor_reconstructed:
            missing = [n for n in numbers if not shard_path(work.folder, n).exists()]
            yield from (local.count_shard(work, n, work.sources.count(n)) for n in numbers if n not in missing)
        if missing:
            self.require_survivors(missing[0])
        sources = ((n, source) for n in missing for source in work.sources.shard(n))
        for number, prepared in groupby(preparer.ahead(sources), key=itemgetter(0)):
            self.compute = self.compute or halving(work.load())
            yield local.make_shard(work, number, self.compute, (p[1:] for p in prepared))

    def preparing(self) -> Preparer[Any, Any]:
        """What prepares sources, as long as this actor lives."""
        if self.preparer is None:
            if self.job.without_gpu:
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # those of a node are for actors that ask for them
            require_same_node(self.job.work, self.job.checks)
            work = self.job.work
            self.preparer = self.open.enter_context(preparing(work.prepare, self.job.workers, work.batch_size))
        return self.preparer

    def require_survivors(self, number: int) -> None:
        """Raises TamingError if actors have died of a shard too often, which Ray would repeat forever."""
        if ray.get(self.job.attempts.begin.remote(number)) > DEATHS:
            raise TamingError(f"Shard {number} of {self.job.work.folder} has killed its actor {DEATHS} times, which "
                              "happens where memory runs out. Give each actor more of a machine with --cpus or "
                              "--gpus, and run the same command again.")  # fmt: skip
