"""Look-ups by object and photo in the objects and captions tables, and the split of each."""

import sqlite3
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from taming_core.drop_reasons import NEAR_DUPLICATE, SPLITS_MIXED, with_details
from taming_core.errors import TamingError
from taming_core.params.sections import MaterializeParams
from taming_core.photos.decode import PhotoError
from taming_core.rows import near_duplicates
from taming_core.rows.assignment import assign_splits, find_usable
from taming_core.rows.hash_bands import signed
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.schema import SPLITS

BATCH = 1024  # rows in memory at once
OBJECT_COLUMNS = (
    "file_name", "object_id", "photo_id", "photo_width", "photo_hash", "photo_thumbnail", "identity", "given_split",
    "drop_reason", "box_xyxy",
)  # fmt: skip
CAPTION_COLUMNS = ("file_name", "object_id", "caption", "object_caption", "drop_reason")
TABLES = """
create table objects (
    key text, file_name text, object_id text, photo_id text, photo_width int, photo_hash int, photo_thumbnail blob,
    identity text, given_split text, drop_reason text, x0 int, y0 int, x1 int, y1 int
);
create table usable (photo_id text primary key) without rowid;
create table splits (name text primary key, split text, is_usable int) without rowid;
create table captions (key text, caption text, object_caption text, drop_reason text);
"""
# Made from all rows at once, by sorting. Of rows with one key the first counts.
INDEXES = """
create index {table}_keys on {table} (key);
delete from {table} where rowid in (
    select {table}.rowid from {table} join (
        select key, min(rowid) as first from {table} group by key having count(*) > 1
    ) as several on several.key = {table}.key and {table}.rowid > first
);
"""
OBJECT_INDEXES = """
create index object_photos on objects (photo_id);
create index object_identities on objects (identity);
"""
# The usable photos of identities that are grouped with others; without splits of metadata a group has one split.
GROUPED = """
select groups.first, photos.node, photo_id from photos join identities on identities.node = photos.identity
join groups on groups.identity = identities.name
where is_usable and exists (select 1 from objects where given_split is not null) order by groups.first
"""

Caption = tuple[str | None, str | None, str | None]  # caption, object_caption, drop_reason


def fill(db: sqlite3.Connection, objects: AnyPath, captions: AnyPath, p: MaterializeParams) -> None:
    """Put both tables without masks into a database, indexed by `key_of`, so that memory does not grow with them.

    Its tables of near-duplicates are filled by `near_duplicates.group`, `usable` and `splits` by `assignment`.

    Raises:
        TamingError: a table is of another version, or the metadata gives one identity different splits.
    """
    db.executescript(TABLES)
    for batch in schema.iter_rows(objects, schema.OBJECTS, BATCH, OBJECT_COLUMNS):
        db.executemany("insert into objects values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_object, batch))
    for batch in schema.iter_rows(captions, schema.CAPTIONS, BATCH, CAPTION_COLUMNS):
        rows = ((key_of(c), *(c[column] for column in CAPTION_COLUMNS[2:])) for c in batch)
        db.executemany("insert into captions values (?, ?, ?, ?)", rows)
    db.executescript(INDEXES.format(table="objects") + INDEXES.format(table="captions") + OBJECT_INDEXES)
    _check_splits(db)
    find_usable(db)
    near_duplicates.group(db, p)
    assign_splits(db, p)
    if (splits := _splits_in_mixed_groups(db)).max() >= 0:
        near_duplicates.note_furthest(db, splits, p)


def _object(o: schema.Row) -> tuple[object, ...]:
    """A row of the table `objects`."""
    known = {**o, "photo_hash": None if o["photo_hash"] is None else signed(int(o["photo_hash"], 16))}
    return key_of(o), *(known[column] for column in OBJECT_COLUMNS[:-1]), *(o["box_xyxy"] or [None] * 4)


def _splits_in_mixed_groups(db: sqlite3.Connection) -> NDArray[np.int8]:
    """Of each photo that becomes rows the index of its split, where others of its group have another; else -1."""
    (count,) = db.execute("select count(*) from photos").fetchone()
    found = np.full(count + 1, -1, np.int8)
    for _, rows in groupby(db.execute(GROUPED), lambda row: row[0]):
        splits = {node: _splits_of_photo(db, photo_id) for _, node, photo_id in rows}
        single = {node: SPLITS.index(names[0]) for node, names in splits.items() if len(names) == 1}
        if len(set(single.values())) > 1:
            found[list(single)] = list(single.values())
    return found


def boxes_of_photo(db: sqlite3.Connection, photo_id: str) -> list[tuple[int, int, int, int]]:
    """The boxes of the kept objects of a photo."""
    query = (
        "select x0, y0, x1, y1 from objects "
        "where photo_id = ? and object_id is not null and drop_reason is null and x0 is not null"
    )
    return db.execute(query, (photo_id,)).fetchall()


def count_dropped(db: sqlite3.Connection) -> int:
    """The number of objects that detection dropped; they make no rows."""
    return db.execute(
        "select count(*) from objects where object_id is not null and drop_reason is not null"
    ).fetchone()[0]


def key_of(row: schema.Row) -> str:
    """The key of a row of either table: its object_id, or the file name if it is about a whole photo."""
    return row["object_id"] or row["file_name"]


def _check_splits(db: sqlite3.Connection) -> None:
    for identity, low, high in db.execute(
        "select coalesce(identity, photo_id) as it, min(given_split), max(given_split) from objects "
        "where given_split is not null group by it"
    ):
        if low != high:
            raise TamingError(f"The metadata puts '{identity}' into {low} and {high}. Give all its photos one split.")
        check_split(low)


def check_split(split: str) -> str:
    """The split itself; raises TamingError if there is no such split."""
    if split not in SPLITS:
        raise TamingError(f"The metadata names a split '{split}'. Use {', '.join(SPLITS)}, or leave it out.")
    return split


def split_of_photo(db: sqlite3.Connection, photo_id: str) -> str:
    """The split of a photo and of all objects in it: that of its identity, or of the photo_id if it has none.

    Neither identities nor photos cross splits: a held-out object cannot be in the background of a training photo.

    Raises:
        PhotoError: the photo shows identities of different splits.
    """
    splits = _splits_of_photo(db, photo_id)
    if len(splits) > 1:
        raise PhotoError(with_details(SPLITS_MIXED, ", ".join(splits)))
    return splits[0]


def split_of_row(db: sqlite3.Connection, photo_id: str) -> str:
    """`split_of_photo`, for a row: of two near-duplicates that the metadata puts into different splits one stays.

    Raises:
        PhotoError: as there, or a near-duplicate is in a split further from training.
    """
    split = split_of_photo(db, photo_id)
    query = "select furthest from near_duplicates join photos using (node) where photo_id = ?"
    furthest = db.execute(query, (photo_id,)).fetchone() or (None,)
    if furthest[0] is not None and furthest[0] > SPLITS.index(split):
        raise PhotoError(NEAR_DUPLICATE)
    return split


def first_near_duplicate(db: sqlite3.Connection, photo_id: str) -> str | None:
    """The file name of the first photo with rows, of another identity, that a photo is a near-duplicate of, if any."""
    query = (
        "select other.name from photos join near_duplicates using (node) join photos as other on other.node = first "
        "where photos.photo_id = ?"
    )
    return first_value(db, query, photo_id)


def _splits_of_photo(db: sqlite3.Connection, photo_id: str) -> list[str]:
    # The identity of objects other than the main one is their object_id.
    query = (
        "select distinct identity from objects "
        "where photo_id = ? and identity is not null and identity is not object_id"
    )
    identities = [identity for (identity,) in db.execute(query, (photo_id,))] or [photo_id]
    return sorted({_metadata_split(db, photo_id, i) or _split_of_group(db, i) for i in identities})


def _metadata_split(db: sqlite3.Connection, photo_id: str, identity: str) -> str | None:
    query = "select given_split from objects where {} = ? and given_split is not null limit 1"
    return first_value(db, query.format("photo_id"), photo_id) or first_value(db, query.format("identity"), identity)


def _split_of_group(db: sqlite3.Connection, identity: str) -> str:
    """The split of the identities that this one is grouped with; that of a photo in no table is train."""
    first = first_value(db, "select first from groups where identity = ?", identity) or identity
    return first_value(db, "select split from splits where name = ?", first) or "train"


def first_value(db: sqlite3.Connection, query: str, value: str) -> str | None:
    """The first column of the first row of a query with one parameter; None if there is no row."""
    row = db.execute(query, (value,)).fetchone()
    return row and row[0]


def caption_of(db: sqlite3.Connection, key: str) -> Caption | None:
    """The captions row of an object or photo file; None if there is none."""
    return db.execute("select caption, object_caption, drop_reason from captions where key = ?", (key,)).fetchone()
