"""The files of rows, one per shard and split, as `datasets` opens them, with references to other views."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from taming_core.errors import TamingError
from taming_core.files import names_in
from taming_core.params.sections import MaterializeParams
from taming_core.progress import track_to
from taming_core.rows import database
from taming_core.rows.hash_bands import signed
from taming_core.seeds import seed_for
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import read_column, read_rows, read_table
from taming_core.tables.schema import SPLITS

pc: Any = compute  # partly untyped
GROUP = 16  # rows per row group, which one random access reads
COLUMNS = (
    "identity", "photo_id", "row_id", "view_hash", "regularization", "split", "near_duplicate_of", "drop_reason",
)  # fmt: skip
TABLES = """
create table views (identity text, photo_id text, row_id text, hash int);
create table shards (number integer primary key, dropped int);
create table kept (split text, regularization int, near_duplicate int, rows int);
"""


@dataclass(frozen=True)
class Views:
    """The rows of one identity, in order of row_id."""

    numbers: NDArray[np.int64]  # of the rows of the table `views`
    hashes: NDArray[np.uint64]
    photo_ids: NDArray[Any]  # bytes


def list_views(path: Path, shards: Iterable[AnyPath], count: int) -> sqlite3.Connection:
    """The kept rows by identity, and how many there are, from a file that is written once.

    Args:
        path: the file.
        shards: the finished shards in order.
        count: how many there are.
    """
    if not path.exists():
        with database.writing(path) as db:
            track_to(add_views(db, shards), "views", count)
    return database.reading(path)


def add_views(db: sqlite3.Connection, shards: Iterable[AnyPath]) -> Iterator[int]:
    """Put what `list_views` gives into an empty database, and yield the shards done."""
    db.executescript(TABLES)
    for number, path in enumerate(shards):
        rows = read_rows(path, COLUMNS)
        kept = schema.kept_rows(rows)
        views = ((r["identity"], r["photo_id"], r["row_id"], signed(int(r["view_hash"], 16))) for r in kept
                 if not r["regularization"])  # fmt: skip
        db.executemany("insert into views values (?, ?, ?, ?)", views)
        db.execute("insert into shards values (?, ?)", (number, len(rows) - len(kept)))
        counts = Counter((r["split"], r["regularization"], r["near_duplicate_of"] is not None) for r in kept)
        db.executemany("insert into kept values (?, ?, ?, ?)", ((*key, count) for key, count in counts.items()))
        yield number + 1
    db.execute("create index view_identities on views (identity, row_id)")


def reference_finder(db: sqlite3.Connection, p: MaterializeParams) -> Callable[[schema.Row], list[str]]:
    """A function from a row to its references, with the database of `list_views`.

    They are row_ids of other photos of the row's identity that are not near-duplicates of its image, in order: cross-
    reference regularization (Jia et al., 2023) needs a view with another pose, light and crop.
    """
    views_of = lru_cache(maxsize=1)(partial(_views_of, db))  # the rows of an identity are often adjacent

    def find(row: schema.Row) -> list[str]:
        if row["drop_reason"] is not None or row["regularization"]:
            return []
        views = views_of(row["identity"])
        far = np.bitwise_count(views.hashes ^ np.uint64(int(row["view_hash"], 16))) > p.duplicate_distance
        candidates = np.flatnonzero(far & (views.photo_ids != row["photo_id"].encode()))
        rng = np.random.default_rng(seed_for(p.seed, f"references:{row['row_id']}", 0))
        drawn = rng.choice(len(candidates), min(p.max_references, len(candidates)), replace=False)
        numbers = views.numbers[candidates[np.sort(drawn)]].tolist()
        return [db.execute("select row_id from views where rowid = ?", (number,)).fetchone()[0] for number in numbers]

    return find


def _views_of(db: sqlite3.Connection, identity: str) -> Views:
    query = "select rowid, hash, photo_id from views where identity = ? order by row_id"
    kind = [("number", np.int64), ("hash", np.int64), ("photo_id", "S32")]
    found = np.fromiter(db.execute(query, (identity,)), kind)
    return Views(found["number"], found["hash"].astype(np.uint64), found["photo_id"])


def write_splits(
    shards: Iterable[AnyPath], folder: AnyPath, expected: pa.Schema, db: sqlite3.Connection, p: MaterializeParams
) -> Iterator[int]:
    """Fill in the references, write the kept rows of each shard as one file per split, and yield the shards done.

    `datasets` takes the split from the file name. Existing files are final.

    Raises:
        TamingError: in the end the files do not hold as many rows as the shards have kept ones.
    """
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    there = names_in(folder)
    find, written = reference_finder(db, p), 0
    for number, shard in enumerate(shards):
        splits = sorted(set(read_column(shard, "split")) & {*SPLITS})
        outs = {split: folder / f"{split}-{number:05d}.parquet" for split in splits}
        rows = _with_references(shard, find) if {out.name for out in outs.values()} - there else None
        for split, out in outs.items():
            if rows is not None and out.name not in there:
                part = rows.filter(pc.equal(rows["split"], split)).combine_chunks()
                schema.write((part.slice(i, GROUP) for i in range(0, len(part), GROUP)), expected, out)
            with schema.open_table(out, schema.ROWS) as file:
                written += file.metadata.num_rows
        yield number + 1
    if (given := _sum(db, "1")) != written:
        raise TamingError(f"{folder} should hold {given} rows and holds {written}: another program changed it. Remove "
                          f"{folder.parent}, and run the same command again.")  # fmt: skip


def _with_references(shard: AnyPath, find: Callable[[schema.Row], list[str]]) -> pa.Table:
    """The rows of a shard with their references."""
    table: Any = read_table(shard)
    columns = ["row_id", "photo_id", "identity", "view_hash", "regularization", "drop_reason"]
    references = [find(row) for row in table.select(columns).to_pylist()]
    at = table.schema.get_field_index("references")
    return table.set_column(at, table.schema.field(at), pa.array(references, pa.list_(pa.string())))


def write_dropped(shards: Callable[[int], AnyPath], out: AnyPath, expected: pa.Schema, db: sqlite3.Connection) -> None:
    """Write the dropped rows of all shards into one table.

    Args:
        shards: the path of each by its number.
        out: the table.
        expected: its schema.
        db: of `list_views`.
    """
    numbers = db.execute("select number from shards where dropped order by number")
    schema.write((_dropped(shards(number)) for (number,) in numbers), expected, out)


def _dropped(shard: AnyPath) -> pa.Table:
    """The dropped rows of a shard; they have no images, and those of the others are not read."""
    rows: Any = schema.ROWS
    table: Any = read_table(shard, [field.name for field in rows if field.type != schema.IMAGE])
    table = table.filter(table["drop_reason"].is_valid())
    columns: list[Any] = [pa.nulls(len(table), f.type) if f.type == schema.IMAGE else table[f.name] for f in rows]
    return pa.Table.from_arrays(columns, schema=schema.ROWS)


def headline(db: sqlite3.Connection) -> str:
    """The number of rows per split, in one line, and how many are near-duplicates across identities, if any are."""
    words = ", ".join(f"{_sum(db, 'split = ?', split)} {split}" for split in SPLITS)
    near = _sum(db, "near_duplicate")
    duplicates = f", {near} with a near-duplicate of another identity" if near else ""
    return f"{words}; {_sum(db, 'regularization')} of them with a caption only{duplicates}"


def _sum(db: sqlite3.Connection, condition: str, *values: str) -> int:
    query = f"select coalesce(sum(rows), 0) from kept where {condition}"
    return db.execute(query, values).fetchone()[0]
