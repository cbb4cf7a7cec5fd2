"""The files of rows, one per shard and split, as `datasets` opens them, with references to other views."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taming_core.drop_reasons import KEPT, reason_of
from taming_core.errors import TamingError
from taming_core.params.sections import MaterializeParams
from taming_core.photos.view_hash import hamming
from taming_core.seeds import seed_for
from taming_core.tables import schema
from taming_core.tables.parquet import read_column, read_rows, read_table
from taming_core.tables.rows import dropped_table
from taming_core.tables.schema import SPLITS

GROUP = 16  # rows per row group, which one random access reads
VIEWS = """
create table views (identity text, photo_id text, row_id text, hash text);
create index identities on views (identity);
"""


def views(shards: Sequence[Path]) -> sqlite3.Connection:
    """The kept rows by identity, in a temporary database, so that memory does not grow with them."""
    db = sqlite3.connect("")
    db.executescript(VIEWS)
    for path in shards:
        columns = ["identity", "photo_id", "row_id", "view_hash", "regularization", "drop_reason"]
        rows = [r for r in schema.kept_rows(read_rows(path, columns)) if not r["regularization"]]
        db.executemany("insert into views values (:identity, :photo_id, :row_id, :view_hash)", rows)
    return db


def references(row: schema.Row, db: sqlite3.Connection, p: MaterializeParams) -> list[str]:
    """The row_ids of other photos of the row's identity that are not near-duplicates of its image, in order.

    Cross-reference regularization (Jia et al., 2023) needs a view with another pose, light and crop.
    """
    if row["drop_reason"] is not None or row["regularization"]:
        return []
    others = db.execute(
        "select row_id, hash from views where identity = ? and photo_id != ? order by row_id",
        (row["identity"], row["photo_id"]),
    )
    row_hash = int(row["view_hash"], 16)
    candidates = [row_id for row_id, view in others if hamming(row_hash, int(view, 16)) > p.duplicate_distance]
    rng = np.random.default_rng(seed_for(p.seed, f"references:{row['row_id']}", 0))
    drawn = rng.choice(len(candidates), min(p.max_references, len(candidates)), replace=False)
    return [candidates[i] for i in sorted(drawn)]


def write_splits(shards: Sequence[Path], folder: Path, expected: pa.Schema, p: MaterializeParams) -> Iterator[int]:
    """Fill in the references, write the kept rows of each shard as one file per split, and yield the shards done.

    `datasets` takes the split from the file name. Existing files are final.

    Raises:
        TamingError: in the end the files do not hold as many rows as the shards have kept ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    db = views(shards)
    for number, shard in enumerate(shards):
        splits = sorted(set(read_column(shard, "split")) & {*SPLITS})
        todo = {s: out for s in splits if not (out := folder / f"{s}-{number:05d}.parquet").exists()}
        rows = [{**r, "references": references(r, db, p)} for r in read_rows(shard)] if todo else []
        for split, out in todo.items():
            part = [r for r in rows if r["split"] == split]
            groups = (schema.table(part[i : i + GROUP], expected) for i in range(0, len(part), GROUP))
            schema.write(groups, expected, out)
        yield number + 1
    given = sum(split in SPLITS for shard in shards for split in read_column(shard, "split"))
    if given != (written := count(folder, "split").total()):
        raise TamingError(f"{folder} should hold {given} rows and holds {written}: another program changed it. Remove "
                          f"{folder.parent}, and run the same command again.")  # fmt: skip


def write_dropped(shards: Sequence[Path], out: Path, expected: pa.Schema) -> None:
    """Write the dropped rows of all shards into one table."""
    tables = (read_table(path) for path in shards if any(_reasons(path)))
    schema.write((t.filter(t.column("drop_reason").is_valid()) for t in tables), expected, out)


def _reasons(path: Path) -> list[str | None]:
    return read_column(path, "drop_reason")


def count(folder: Path, column: str) -> Counter[Any]:
    """The number of kept rows per value of a column."""
    counts: Counter[Any] = Counter()
    for path in sorted(folder.glob("*.parquet")):
        counts.update(read_column(path, column))
    return counts


def reasons(folder: Path) -> Counter[str]:
    """The number of kept rows, and of rows per drop reason."""
    return Counter({KEPT: count(folder, "split").total()}) + Counter(map(reason_of, _reasons(dropped_table(folder))))


def headline(folder: Path) -> str:
    """The number of rows per split, in one line, and how many are near-duplicates across identities, if any are."""
    splits, others = count(folder, "split"), count(folder, "near_duplicate_of")
    words = ", ".join(f"{splits[split]} {split}" for split in SPLITS)
    near = others.total() - others[None]
    duplicates = f", {near} with a near-duplicate of another identity" if near else ""
    return f"{words}; {count(folder, 'regularization')[True]} of them with a caption only{duplicates}"
