"""Shards without models, and sources that misbehave; every process can import them."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from taming_core.engine.work import ShardWork
from taming_core.errors import TamingError
from taming_core.tables import schema

TABLE = pa.schema([
    schema.column("file_name", pa.string(), "of the photo"),
    schema.column("value", pa.int64(), "its square"),
    schema.column("drop_reason", pa.string(), "null means kept", nullable=True),
])  # fmt: skip


@dataclass(frozen=True)
class Numbers:
    """The numbers below `total`."""

    total: int
    size: int

    def __len__(self) -> int:
        return self.total

    def shard_count(self) -> int:
        return -(-self.total // self.size)

    def count(self, number: int) -> int:
        return len(self.shard(number))

    def shard(self, number: int) -> list[int]:
        return list(range(self.total))[number * self.size : (number + 1) * self.size]


def work(folder: Path, prepare: Callable[[int], int | str] | None = None, count: int = 20) -> ShardWork[int, int]:
    """Squares of numbers in shards of three."""
    return ShardWork(Numbers(count, 3), folder, TABLE, prepare or square, partial(load, folder), 2)


def square(number: int) -> int | str:
    return number**2 if number % 5 else "too small"


def load(folder: Path) -> Callable[[Sequence[tuple[int, int | str]]], list[schema.Row]]:
    (folder.parent / f"loaded-{os.getpid()}").touch()
    return rows


def rows(batch: Sequence[tuple[int, int | str]]) -> list[schema.Row]:
    return [row(number, value) for number, value in batch]


def row(number: int, value: int | str) -> schema.Row:
    dropped = isinstance(value, str)
    return {"file_name": f"{number}.png", "value": 0 if dropped else value, "drop_reason": value if dropped else None}


def kill_worker_at(number: int, chosen: int) -> int | str:
    """`square`, in a process that one source kills."""
    if number == chosen:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def square_slowly(number: int) -> int | str:
    time.sleep(0.3)
    return square(number)


def load_killed_once(folder: Path, chosen: int) -> Callable[[Sequence[tuple[int, int | str]]], list[schema.Row]]:
    """Models in a process that is killed at one source, the first time."""

    def kill_once(batch: Sequence[tuple[int, int | str]]) -> list[schema.Row]:
        note = folder.parent / "killed"
        if any(number == chosen for number, _ in batch) and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows(batch)

    return kill_once


def load_killing() -> Callable[[Sequence[tuple[int, int | str]]], list[schema.Row]]:
    """Models for which there is never enough memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return rows


def load_nothing() -> Callable[[Sequence[tuple[int, int | str]]], list[schema.Row]]:
    raise TamingError("There is no model here. Train one.")


def load_wrongly() -> Callable[[Sequence[tuple[int, int | str]]], list[schema.Row]]:
    print(1 // (os.getpid() - os.getpid()))
    return rows
