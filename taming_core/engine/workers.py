"""Preparing sources ahead of the models, in worker processes; a photo that kills them is set aside."""

import os
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from taming_core.drop_reasons import KILLS_WORKER
from taming_core.engine.processes import context, settle
from taming_core.errors import TamingError
from taming_core.photos import decode

S = TypeVar("S")
R = TypeVar("R")

TRIES = 2  # of a source alone in its worker, until it is the one that kills it
STARTS = 5  # of workers that are killed before they have a source
AHEAD = 1 << 29  # bytes of prepared sources that wait for the models, about

_prepare: Callable[[Any], Any]  # in a worker


class Preparer(Generic[S, R]):
    """Prepares sources in processes, or in threads of this one."""

    def __init__(self, start: Callable[[], Executor], prepare: Callable[[S], R | str], most: int, fewest: int) -> None:
        """Start nothing yet.

        Args:
            start: makes an executor.
            prepare: is called in it.
            most: sources that wait or are being prepared.
            fewest: as many, however large they are.
        """
        self.start, self.prepare, self.most, self.fewest = start, prepare, most, fewest
        self.executor, self.largest = start(), 1

    def ahead(self, sources: Iterable[tuple[int, S]]) -> Iterator[tuple[int, S, R | str]]:
        """The numbered sources in their order, each as it was prepared."""
        waiting: deque[tuple[int, S, Future[R | str]]] = deque()
        for number, source in sources:
            waiting.append((number, source, self._submit(source)))
            while len(waiting) >= self._depth():
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _depth(self) -> int:
        return max(self.fewest, min(self.most, AHEAD // self.largest))

    def _submit(self, source: S) -> "Future[R | str]":
        """The source on its way; in a broken pool too, where its turn repairs it."""
        try:
            return self.executor.submit(self.prepare, source)
        except BrokenProcessPool as error:
            failed: Future[R | str] = Future()
            failed.set_exception(error)
            return failed

    def _next(self, waiting: "deque[tuple[int, S, Future[R | str]]]") -> tuple[int, S, R | str]:
        number, source, future = waiting[0]
        try:
            prepared = future.result()
        except BrokenProcessPool:
            self._repair(waiting)
            prepared = waiting[0][2].result()
        waiting.popleft()
        self.largest = max(self.largest, nbytes(prepared))
        return number, source, prepared

    def _repair(self, waiting: "deque[tuple[int, S, Future[R | str]]]") -> None:
        """Prepare what a killed worker has taken with it again, one at a time, since any of it may be the reason."""
        self._restart()
        for place, (number, source, future) in enumerate(waiting):
            if isinstance(future.exception(), BrokenProcessPool):
                done: Future[R | str] = Future()
                done.set_result(self._alone(source))
                waiting[place] = number, source, done

    def _alone(self, source: S) -> R | str:
        for _ in range(TRIES):
            try:
                return self.executor.submit(self.prepare, source).result()
            except BrokenProcessPool:
                self._restart()
        return KILLS_WORKER

    def _restart(self) -> None:
        """New workers, of which one is known to live.

        Raises:
            TamingError: they are killed before they have anything to do.
        """
        for _ in range(STARTS):
            self.executor.shutdown()
            self.executor = self.start()
            try:
                self.executor.submit(os.getpid).result()
            except BrokenProcessPool:
                continue
            return
        raise TamingError("Worker processes are killed before they read a photo, which happens where memory runs out. "
                          "End other programs, or use --workers 0.")  # fmt: skip


@contextmanager
def preparing(prepare: Callable[[S], R | str], workers: int, batch_size: int) -> "Generator[Preparer[S, R]]":
    """A `Preparer` for the block, that is ahead by a batch and by what keeps its workers busy.

    Args:
        prepare: see `ShardWork`.
        workers: processes; 0 for threads of this one.
        batch_size: of what is prepared, as the models take it.
    """
    count = workers or os.cpu_count() or 1
    start = partial(worker_pool, prepare, workers) if workers else partial(ThreadPoolExecutor, count)
    preparer: Preparer[S, R] = Preparer(start, prepare_here if workers else prepare, batch_size + 2 * count, count + 1)
    try:
        yield preparer
    finally:
        preparer.executor.shutdown(cancel_futures=True)


def worker_pool(prepare: Callable[[Any], Any], workers: int) -> ProcessPoolExecutor:
    """Processes that prepare sources; large photos take turns in all of them."""
    processes = context()
    arguments = prepare, processes.Lock(), dict(os.environ)
    return ProcessPoolExecutor(workers, processes, initializer=_start, initargs=arguments)


def _start(prepare: Callable[[Any], Any], turns: AbstractContextManager[Any], environment: dict[str, str]) -> None:
    global _prepare
    settle(environment)
    decode.take_turns(turns)
    _prepare = prepare


def prepare_here(source: Any) -> Any:
    """A source prepared by this worker."""
    return _prepare(source)


def nbytes(value: object) -> int:
    """The bytes of the arrays in a value, which are not copied.

    >>> nbytes("not an image")
    0
    """
    buffers: list[pickle.PickleBuffer] = []
    pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return sum(buffer.raw().nbytes for buffer in buffers)
