"""Identities whose photos seem to show different objects, by the classes that the detector is sure of."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import groupby
from operator import itemgetter

from taming_core.storage.paths import AnyPath
from taming_core.tables import schema

SURE = 0.5  # least score of a detection that counts
LEAST = 4  # photos of an identity that count
COLUMNS = ("identity", "object_id", "class", "score", "drop_reason")


def mixed_identities(table: AnyPath) -> list[str]:
    """A line that names the identities of an objects table of which no class has half of the photos; or none."""
    counts = groupby(class_counts(table), key=itemgetter(0))
    classes = ((identity, Counter({noun: count for _, noun, count in found})) for identity, found in counts)
    mixed = [f"{identity} ({_listed(found)})" for identity, found in classes if is_mixed(found)]
    return [f"identities that seem to hold different objects: {', '.join(mixed)}"] if mixed else []


def class_counts(table: AnyPath) -> Iterator[tuple[str, str, int]]:
    """Identity, class and how many sure objects are of both, in the order of the table; counted on disk."""
    batches = schema.iter_rows(table, schema.OBJECTS, 1024, COLUMNS)
    sure = (
        (row["identity"], row["class"])
        for batch in batches
        for row in schema.kept_rows(batch)
        if row["identity"] not in (None, row["object_id"]) and row["class"] and row["score"] >= SURE
    )
    with closing(sqlite3.connect("")) as db:  # a temporary file
        db.execute("CREATE TABLE found (identity TEXT, class TEXT, count INTEGER, PRIMARY KEY (identity, class))")
        db.executemany("INSERT INTO found VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1", sure)
        yield from db.execute(
            "SELECT identity, class, count FROM found ORDER BY MIN(rowid) OVER (PARTITION BY identity), rowid"
        )


def is_mixed(classes: Mapping[str, int]) -> bool:
    """Whether no class has half of an identity's photos, of which there are a few.

    >>> is_mixed({"dog": 2, "cup": 2, "car": 1}), is_mixed({"dog": 3, "cup": 2})
    (True, False)
    """
    photos = sum(classes.values())
    return photos >= LEAST and max(classes.values()) * 2 < photos


def _listed(classes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.most_common())
