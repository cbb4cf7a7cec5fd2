"""Identities whose photos seem to show different objects, by the classes that the detector is sure of."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from taming_core.tables import schema

SURE = 0.5  # least score of a detection that counts
LEAST = 4  # photos of an identity that count
COLUMNS = ("identity", "object_id", "class", "score", "drop_reason")


def mixed_identities(table: Path) -> list[str]:
    """A line that names the identities of an objects table of which no class has half of the photos; or none."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for batch in schema.iter_rows(table, schema.OBJECTS, 1024, COLUMNS):
        for row in schema.kept_rows(batch):
            if row["identity"] not in (None, row["object_id"]) and row["class"] and row["score"] >= SURE:
                classes[row["identity"]][row["class"]] += 1
    mixed = [f"{identity} ({_listed(found)})" for identity, found in classes.items() if is_mixed(found)]
    return [f"identities that seem to hold different objects: {', '.join(mixed)}"] if mixed else []


def is_mixed(classes: Mapping[str, int]) -> bool:
    """Whether no class has half of an identity's photos, of which there are a few.

    >>> is_mixed({"dog": 2, "cup": 2, "car": 1}), is_mixed({"dog": 3, "cup": 2})
    (True, False)
    """
    photos = sum(classes.values())
    return photos >= LEAST and max(classes.values()) * 2 < photos


def _listed(classes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.most_common())
