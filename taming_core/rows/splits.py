"""The files of rows: one per shard and split, as `datasets` opens them; views of one identity know one another."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from taming_core.errors import TamingError
from taming_core.params.sections import MaterializeParams
from taming_core.photos.view_hash import hamming
from taming_core.seeds import seed_for
from taming_core.tables import schema
from taming_core.tables.drop_counts import reason_of
from taming_core.tables.schema import SPLITS

GROUP = 16  # rows per row group: what one random access reads
VIEWS = """
create table views (identity text, photo_id text, row_id text, hash text);
create index identities on views (identity);
"""


def views(shards: Sequence[Path]) -> sqlite3.Connection:
    """Which kept rows show which identity, in a temporary file, so that memory does not grow with them."""
    db = sqlite3.connect("")
    db.executescript(VIEWS)
    for path in shards:
        found = pq.read_table(
            path, columns=["identity", "photo_id", "row_id", "view_hash", "regularization", "drop_reason"]
        )
        rows = [r for r in schema.kept_rows(found.to_pylist()) if not r["regularization"]]
        db.executemany("insert into views values (:identity, :photo_id, :row_id, :view_hash)", rows)
    return db


def references(row: schema.Row, db: sqlite3.Connection, p: MaterializeParams) -> list[str]:
    """The row_ids of other photos of the row's identity that are no near-duplicates of its image, in order.

    Cross-reference regularization (Jia et al., 2023) needs a view with another pose, light and crop.
    """
    if row["drop_reason"] is not None or row["regularization"]:
        return []
    others = db.execute(
        "select row_id, hash from views where identity = ? and photo_id != ? order by row_id",
        (row["identity"], row["photo_id"]),
    )
    own = int(row["view_hash"], 16)
    found = [row_id for row_id, view in others if hamming(own, int(view, 16)) > p.duplicate_distance]
    rng = np.random.default_rng(seed_for(p.seed, f"references:{row['row_id']}", 0))
    drawn = rng.choice(len(found), min(p.max_references, len(found)), replace=False)
    return [found[i] for i in sorted(drawn)]


def write_splits(shards: Sequence[Path], folder: Path, expected: pa.Schema, p: MaterializeParams) -> Iterator[int]:
    """Fill in the references, and write each shard as one file per split that it has; yields how many are done.

    `datasets` tells a split by the file's name; files that begin with `dropped` belong to none. What exists is final.
    """
    folder.mkdir(parents=True, exist_ok=True)
    db = views(shards)
    for number, shard in enumerate(shards):
        splits = sorted(set(pq.read_table(shard, columns=["split"]).column("split").to_pylist()))
        todo = {s: out for s in splits if not (out := folder / f"{s}-{number:05d}.parquet").exists()}
        rows = [{**r, "references": references(r, db, p)} for r in pq.read_table(shard).to_pylist()] if todo else []
        for split, out in todo.items():
            part = [r for r in rows if r["split"] == split]
            groups = (schema.table(part[i : i + GROUP], expected) for i in range(0, len(part), GROUP))
            schema.write(groups, expected, out)
        yield number + 1


def replace_folder(made: Path, out: Path) -> None:
    """Put `made` in the place of `out` as a whole: nobody sees half of it.

    Raises:
        TamingError: `out` holds something else than rows.
    """
    check_out(out)
    waiting = out.with_name(out.name + ".part")
    shutil.rmtree(waiting, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, waiting)  # may copy, from another disk
    shutil.rmtree(out, ignore_errors=True)
    waiting.rename(out)


def check_out(out: Path) -> None:
    """Raises TamingError if `out` holds something else than rows, for all that is in it will be replaced."""
    if out.exists() and (not out.is_dir() or any(not _is_rows_file(path) for path in out.iterdir())):
        raise TamingError(f"{out} holds other files than rows. Name a folder of its own with --out.")


def _is_rows_file(path: Path) -> bool:
    return path.suffix == ".parquet" and path.stem.split("-")[0] in (*SPLITS, "dropped")


def count(folder: Path, column: str) -> Counter[Any]:
    """How many rows there are of each value of a column."""
    found: Counter[Any] = Counter()
    for path in sorted(folder.glob("*.parquet")):
        found.update(pq.read_table(path, columns=[column]).column(column).to_pylist())
    return found


def reasons(folder: Path) -> Counter[str]:
    """How many rows were kept, and how many took each drop reason."""
    found: Counter[str] = Counter()
    for reason, number in count(folder, "drop_reason").items():
        found[reason_of(reason)] += number
    return found


def headline(folder: Path) -> str:
    """Rows per split, in words."""
    splits = count(folder, "split")
    words = ", ".join(f"{splits[split]} {split}" for split in SPLITS)
    return f"{words}; {count(folder, 'regularization')[True]} of them with a caption only"
