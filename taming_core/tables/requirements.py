"""What training and evaluation require of the rows, checked before any work and said when the rows are made."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from taming_core.errors import TamingError
from taming_core.params.train import TrainParams
from taming_core.tables.parquet import read_rows
from taming_core.tables.rows import Rows


def require_rows(rows: Rows, p: TrainParams) -> None:
    """Require rows that these params can train on.

    Raises:
        TamingError: there are no object rows; `regularization` is above 0 without such rows; or both they and `prior`
            are given.
    """
    if not len(rows.objects):
        raise TamingError(
            "No training row holds an object. Add photos, or lower materialize.validation and materialize.test."
        )
    if p.regularization > 0 and p.prior is None and not len(rows.regularization):
        raise TamingError(
            f"train.regularization is {p.regularization}, but the rows hold no text-image pairs. Set it to 0, run "
            "`taming materialize --regularization FOLDER`, or have train.prior images drawn."
        )
    if p.prior is not None and len(rows.regularization):
        raise TamingError(
            f"train.prior is {p.prior}, but the rows hold {len(rows.regularization)} text-image pairs. Set it to null, "
            "or run `taming materialize` without --regularization."
        )


@dataclass(frozen=True)
class Identities:
    """How many individual objects rows show, and how many of these have one view, where another is wanted."""

    count: int
    alone: int


def count_identities(rows: Rows) -> Identities:
    """The identities of the object rows, counted on disk, so that memory does not grow with them.

    An object beside the main one of its photo is an identity of its own, of which no other view is expected.
    """
    with closing(sqlite3.connect("")) as db:
        db.execute("create table identities (name text primary key, others int) without rowid")
        db.executemany("insert into identities values (?, ?) on conflict (name) do update set others = max(others, "
                       "excluded.others)", _views(rows))  # fmt: skip
        count, others = db.execute("select count(*), coalesce(sum(others), 0) from identities").fetchone()
    return Identities(count, count - others)


def _views(rows: Rows) -> Iterator[tuple[str, bool]]:
    """Of each object row the identity, and whether it needs no other view, or has one."""
    start = 0
    for path in rows.files:
        part = read_rows(path, ["identity", "references", "row_id", "regularization"])
        for number, row in enumerate(part, start):
            if not row["regularization"] and number not in rows.excluded:
                yield row["identity"], bool(row["references"]) or row["identity"] == row["row_id"]
        start += len(part)


def require_identities(rows: Rows, split: str) -> None:
    """Require two identities or more in the rows of a split, or recognition would be trivial.

    Raises:
        TamingError: there are fewer.
    """
    if (count := count_identities(rows).count) < 2:
        found = "1 identity" if count else "no identities"
        raise TamingError(
            f"The split {split} has {found}, and evaluation needs two or more. Add photos of more objects, or raise "
            f"materialize.{split}, and run `taming materialize` again."
        )
