"""What the shards of a table are made of, and how; an engine makes them on one machine or on many."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from taming_core.storage.paths import AnyPath
from taming_core.tables import schema

S = TypeVar("S")
R = TypeVar("R")


@runtime_checkable
class Sources(Protocol[S]):
    """The inputs of a stage in the order of its table; picklable, and read from disk a shard at a time."""

    def __len__(self) -> int:
        """The number of sources."""
        ...

    def shard_count(self) -> int:
        """The number of shards that they make."""
        ...

    def count(self, number: int) -> int:
        """The number of sources of one shard."""
        ...

    def shard(self, number: int) -> list[S]:
        """The sources of one shard."""
        ...


@dataclass(frozen=True)
class ShardWork(Generic[S, R]):
    """The shards of one table; picklable, so that any process on any machine can make any of them."""

    sources: Sources[S]
    folder: AnyPath  # of the shards, which are written whole or not at all; a finished one is final
    expected: pa.Schema
    # Without models, in worker processes. A text in the place of what is prepared is the drop reason of a bad photo;
    # an engine gives one too, for a photo that kills its worker.
    prepare: Callable[[S], R | str]
    load: Callable[[], Callable[[Sequence[tuple[S, R | str]]], list[schema.Row]]]  # loads models: rows of one batch
    batch_size: int  # sources per call; batches do not cross shards
    inputs: tuple[AnyPath, ...] = ()  # files and folders that `prepare` and `load` read, which all processes must see


@dataclass(frozen=True)
class ShardDone:
    """A shard that is finished, made now or before."""

    number: int
    sources: int
    reasons: Counter[str]  # rows per drop reason; kept ones too
