"""What the tables say of one object or photo, and which split it belongs to."""

import sqlite3
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.params.sections import MaterializeParams
from taming_core.photos.decode import PhotoError
from taming_core.seeds import seed_for
from taming_core.tables import schema
from taming_core.tables.schema import SPLITS

BATCH = 1024  # rows in memory at once
OBJECT_FACTS = ("file_name", "object_id", "photo_id", "photo_width", "identity", "given_split", "drop_reason")
CAPTION_FACTS = ("file_name", "object_id", "caption", "object_caption", "drop_reason")
TABLES = """
create table objects (
    key text primary key, object_id text, photo_id text, photo_width int, identity text, given_split text,
    drop_reason text
);
create table captions (key text primary key, caption text, object_caption text, drop_reason text);
create index photos on objects (photo_id);
create index identities on objects (identity);
"""

Caption = tuple[str | None, str | None, str | None]  # caption, object_caption, drop_reason


def build_index(objects: Path, captions: Path) -> sqlite3.Connection:
    """What both tables say, without pictures, by `key_of`: in a temporary file, so that memory does not grow with them.

    Raises:
        TamingError: a table is of another version, or the photos of one identity are given different splits.
    """
    db = sqlite3.connect("")
    db.executescript(TABLES)
    for found in schema.iter_rows(objects, schema.OBJECTS, BATCH, OBJECT_FACTS):
        rows = ((key_of(o), *(o[fact] for fact in OBJECT_FACTS[1:])) for o in found)
        db.executemany("insert or ignore into objects values (?, ?, ?, ?, ?, ?, ?)", rows)
    for found in schema.iter_rows(captions, schema.CAPTIONS, BATCH, CAPTION_FACTS):
        rows = ((key_of(c), *(c[fact] for fact in CAPTION_FACTS[2:])) for c in found)
        db.executemany("insert or ignore into captions values (?, ?, ?, ?)", rows)
    _check_splits(db)
    return db


def count_dropped(db: sqlite3.Connection) -> int:
    """How many objects detection dropped: they make no rows."""
    return db.execute(
        "select count(*) from objects where object_id is not null and drop_reason is not null"
    ).fetchone()[0]


def key_of(found: schema.Row) -> str:
    """What a row of either table speaks of: an object, or a whole photo file."""
    return found["object_id"] or found["file_name"]


def _check_splits(db: sqlite3.Connection) -> None:
    for identity, low, high in db.execute(
        "select coalesce(identity, photo_id) as it, min(given_split), max(given_split) from objects "
        "where given_split is not null group by it"
    ):
        if low != high:
            raise TamingError(f"The metadata puts '{identity}' into {low} and {high}. Give all its photos one split.")
        known_split(low)


def known_split(split: str) -> str:
    """The split itself; raises TamingError for a word that is none."""
    if split not in SPLITS:
        raise TamingError(f"The metadata names a split '{split}'. Use {', '.join(SPLITS)}, or leave it out.")
    return split


def split_of(identity: str, p: MaterializeParams) -> str:
    """The split of an identity, by nothing but its name: it stays when others are added.

    The shares hold on average over many identities; a few dozen can deviate.
    """
    place = seed_for(p.seed, f"split:{identity}", 0) / 2**63
    return "test" if place < p.test else "validation" if place < p.test + p.validation else "train"


def split_in(db: sqlite3.Connection, photo_id: str, p: MaterializeParams) -> str:
    """The split of a photo, and so of all that is in it: that of the identity it shows, or its own where it shows none.

    Neither an identity nor a photo straddles: a held-out thing cannot get into training as another's surroundings.

    Raises:
        PhotoError: the photo shows identities of different splits.
    """
    # Whatever is in a photo beside its main object has an identity that is no more than its object_id.
    shown = (
        "select distinct identity from objects "
        "where photo_id = ? and identity is not null and identity is not object_id"
    )
    homes = [identity for (identity,) in db.execute(shown, (photo_id,))] or [photo_id]
    splits = sorted({_given_split(db, photo_id, home) or split_of(home, p) for home in homes})
    if len(splits) > 1:
        raise PhotoError(f"shows things of different splits: {', '.join(splits)}")
    return splits[0]


def _given_split(db: sqlite3.Connection, photo_id: str, identity: str) -> str | None:
    query = "select given_split from objects where {} = ? and given_split is not null limit 1"
    return first(db, query.format("photo_id"), photo_id) or first(db, query.format("identity"), identity)


def first(db: sqlite3.Connection, query: str, value: str) -> str | None:
    """The first column of the first row that a query with one parameter finds."""
    found = db.execute(query, (value,)).fetchone()
    return found and found[0]


def caption_of(db: sqlite3.Connection, key: str) -> Caption | None:
    """What the captions table says of an object or photo file; None where it says nothing."""
    return db.execute("select caption, object_caption, drop_reason from captions where key = ?", (key,)).fetchone()
