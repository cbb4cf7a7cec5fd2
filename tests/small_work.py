"""Shards of captions without models, of sources that are names; some names harm what prepares them."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from taming_core.engine import manifest
from taming_core.engine.manifest import Manifest
from taming_core.engine.work import ShardWork
from taming_core.tables import schema

COLUMNS = pa.schema([pa.field("file_name", pa.string(), nullable=False)])
Pairs = Sequence[tuple[str, str]]


def name_of(row: schema.Row) -> str:
    return row["file_name"]


def prepare(name: str, folder: Path) -> str:
    """The name in capitals; a file in `folder` says that it is being prepared."""
    (folder / name).touch()
    if name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("once") and not (folder / f"{name}-again").exists():
        (folder / f"{name}-again").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("slow"):
        time.sleep(0.2)
    return name.upper()


def rows_of(pairs: Pairs) -> list[schema.Row]:
    """A row for each; those after b are dropped."""
    empty = dict.fromkeys(schema.CAPTIONS.names)
    return [
        {
            **empty,
            "photo_id": "0" * 16,
            "file_name": name,
            "caption": prepared,
            "drop_reason": reason_of(name, prepared),
        }
        for name, prepared in pairs
    ]


def reason_of(name: str, prepared: str) -> str | None:
    if prepared != name.upper():
        return prepared
    return "late: very" if name > "b" else None


def loaded(compute: Callable[[Pairs], list[schema.Row]]) -> Callable[[Pairs], list[schema.Row]]:
    return compute


def work(
    folder: Path,
    names: Sequence[str],
    compute: Callable[[Pairs], list[schema.Row]] = rows_of,
    size: int = 2,
    batch_size: int = 2,
) -> ShardWork[str, str]:
    """The work on names, with its manifest, state and notes of what was prepared below a folder."""
    (folder / "prepared").mkdir(parents=True, exist_ok=True)
    manifest.write(({"file_name": name} for name in names), COLUMNS, folder / "manifest.parquet", size)
    sources: Manifest[str] = Manifest(folder / "manifest.parquet", size, name_of)
    ready: Any = partial(prepare, folder=folder / "prepared")
    return ShardWork(sources, folder / "state", schema.CAPTIONS, ready, partial(loaded, compute), batch_size)
