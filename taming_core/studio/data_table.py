"""What the tab Data shows: the objects of a project as its tables say, with what a person said; filtered and sorted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from taming_core.drop_reasons import KEPT, reason_of
from taming_core.errors import TamingError
from taming_core.inspection.items import Item, Joined, join, object_item
from taming_core.overrides import statements, table
from taming_core.overrides.apply import correct
from taming_core.overrides.matching import Correction, corrections
from taming_core.photos.masks import Box
from taming_core.storage.filesystem import file_state
from taming_core.tables import schema
from taming_core.tables.parquet import column_reader
from taming_core.tables.row_files import rows_state
from taming_core.tables.rows import dropped_table

OBJECTS, CAPTIONS, ROWS = Path("data/objects.parquet"), Path("data/captions.parquet"), Path("data/rows")
LIGHT = tuple(name for name in schema.OBJECTS.names if name not in ("photo_thumbnail", "mask_png"))
ANY, DROPPED, UNKNOWN = "any", "dropped", "unknown"  # what a filter can name besides values
SORTED_BY = ("table", "file name", "class", "identity")
ORDERS = ("lowest first", "highest first")

Row = dict[str, Any]


class Photo(NamedTuple):
    """The rows of one photo as `taming detect` wrote them, their masks left out, and their numbers in the table."""

    rows: Sequence[Row]
    numbers: Sequence[int]


@dataclass(frozen=True)
class Data:
    """The tables of a project in memory, without masks and pictures."""

    objects: Path
    overrides: Path
    photos: Mapping[str, Photo]  # by file name
    later: Joined


@dataclass(frozen=True)
class Filters:
    """Which items are shown, and in which order."""

    text: str = ""
    state: str = ANY
    noun: str = ANY
    identity: str = ANY
    split: str = ANY
    said: str = ANY
    number: str = ANY
    low: str = ""
    high: str = ""
    sort: str = SORTED_BY[0]
    order: str = ORDERS[0]


def load(project: Path) -> Data:
    """The tables of a project, read again after one of them has been written.

    Raises:
        TamingError: there is no table of objects, or one is damaged or of another version.
    """
    objects, captions, rows = project / OBJECTS, project / CAPTIONS, project / ROWS
    if not objects.is_file():
        raise TamingError(f"There is no {OBJECTS} in this project. Run `dvc repro` or `taming detect` first.")
    states = [file_state(path) if path.is_file() else "" for path in (objects, captions, dropped_table(rows))]
    return _load(project, (*states, rows_state(rows) if rows.is_dir() else ""))


@lru_cache(1)
def _load(project: Path, _states: tuple[str, ...]) -> Data:
    objects = project / OBJECTS
    read = (row for rows in schema.iter_rows(objects, schema.OBJECTS, 1024, LIGHT) for row in rows)
    empty = dict.fromkeys(schema.OBJECTS.names)
    # Of a mask only whether there is one.
    numbered: list[Row] = [{**empty, **row, "mask_png": None if row["area_fraction"] is None else b""} for row in read]
    photos: dict[str, Photo] = {}
    for name, group in groupby(range(len(numbered)), lambda n: numbered[n]["file_name"]):
        numbers = list(group)
        photos[name] = Photo([numbered[n] for n in numbers], numbers)
    keys = {row["object_id"] or row["file_name"] for row in numbered}
    later = join(project / CAPTIONS, project / ROWS, keys)
    return Data(objects, objects.with_name(table.NAME), photos, later)


def items(data: Data) -> list[Item]:
    """All items of a project, with what a person has said until now."""
    said = corrections(table.read(data.overrides))
    return [object_item(row, data.later) for photo in data.photos.values() for row in _corrected(photo.rows, said)]


def _corrected(rows: Sequence[Row], said: Mapping[str, Sequence[Correction]]) -> Sequence[Row]:
    of_photo = said.get(rows[0]["photo_id"])
    return correct(rows, of_photo).rows if of_photo else rows


@dataclass(frozen=True)
class Chosen:
    """One object, or a photo without, with its mask; and what may be said of it."""

    item: Item
    row: Row  # corrected
    key: Box | None  # that names it in the table of overrides; None of a photo without objects
    said: Correction | None


def choose(data: Data, file_name: str, key: str) -> Chosen:
    """The object of this key in a photo.

    Raises:
        TamingError: it is not there any more.
    """
    if (chosen := find(data, file_name, key)) is None:
        raise TamingError(f"{file_name} has no such object any more. Choose another one.")
    return chosen


def find(data: Data, file_name: str, key: str) -> Chosen | None:
    """The object of this key in a photo; None where it is not there any more."""
    photo = data.photos.get(file_name)
    masks = column_reader(data.objects, "mask_png")(photo.numbers) if photo else []
    rows = [{**row, "mask_png": mask} for row, mask in zip(photo.rows if photo else [], masks, strict=True)]
    said = corrections(table.read(data.overrides)).get(rows[0]["photo_id"], []) if rows else []
    fixed = correct(rows, said).rows if said else rows
    row = next((row for row in fixed if key == (row["object_id"] or row["file_name"])), None)
    if row is None:
        return None
    base = next((r for r in rows if r["object_id"] and r["object_id"] == row["object_id"]), None)
    box = statements.key_of(base, rows, said) if base else _added_box(row, said)
    correction = next((c for c in said if c.box_xyxy == box), None)
    return Chosen(object_item(row, data.later), row, box, correction)


def _added_box(row: Row, said: Iterable[Correction]) -> Box | None:
    """The box that names an object which only a person found; None of a photo without objects."""
    return next((c.box_xyxy for c in said if row["mask_png"] and row["mask_png"] in (c.mask, c.seen_mask)), None)


def take_back(data: Data, chosen: Chosen) -> None:
    """Remove all that was said of an object."""
    table.change(data.overrides, lambda said: [o for o in said if not _is_about(o, chosen)])


def _is_about(override: table.Override, chosen: Chosen) -> bool:
    return (override.photo_id, override.box_xyxy) == (chosen.row["photo_id"], chosen.key)


def undo(data: Data) -> table.Override | None:
    """Take back the last thing that was said, and return it; None if nothing is left."""
    said = table.read(data.overrides)
    if said:
        table.undo(data.overrides, said[-1:])
    return said[-1] if said else None


def filtered(some: Sequence[Item], f: Filters) -> list[Item]:
    """The items that fit, in their order.

    >>> cup = Item("a-0", "a.jpg", "cup", "a", None, None, "a cup", None, (), {"score": 0.5})
    >>> can = Item("b-0", "b.jpg", "can", "b", "train", "cut off: left", None, None, ("rejected",), {"score": 0.9})
    >>> [i.key for i in filtered([cup, can], Filters(sort="score", order="highest first"))]
    ['b-0', 'a-0']
    >>> [[i.key for i in filtered([cup, can], f)] for f in (Filters(text="CUP"), Filters(state="cut off"))]
    [['a-0'], ['b-0']]

    Raises:
        TamingError: a bound is no number.
    """
    words, low, high = f.text.lower().split(), bound(f.low), bound(f.high)
    found = [item for item in some if _fits(item, f, low, high) and all(word in _text(item) for word in words)]
    if f.sort == SORTED_BY[0]:
        return found
    value = _by(f.sort)
    known = sorted((i for i in found if value(i) is not None), key=value, reverse=f.order == ORDERS[1])
    return known + [i for i in found if value(i) is None]


def bound(text: str) -> float | None:
    """The number that a person wrote as a bound; None for none.

    >>> bound(" 0,5"), bound("")
    (0.5, None)

    Raises:
        TamingError: the text is no number.
    """
    try:
        return float(text.replace(",", ".")) if text.strip() else None
    except ValueError as error:
        raise TamingError(f"'{text[:40]}' is no number. Write one such as 0.5, or nothing.") from error


def _fits(item: Item, f: Filters, low: float | None, high: float | None) -> bool:
    if f.number != ANY and not _within(item.numbers.get(f.number), low, high):
        return False
    if f.said not in (ANY, *item.override):
        return False
    names = ((f.noun, item.noun), (f.identity, item.identity), (f.split, item.split))
    return _has_state(item, f.state) and all(w in (ANY, v or UNKNOWN) for w, v in names)


def _has_state(item: Item, state: str) -> bool:
    reason = reason_of(item.drop_reason)
    return state in (ANY, reason) or (state == DROPPED and reason != KEPT)


def _within(value: float | None, low: float | None, high: float | None) -> bool:
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def _text(item: Item) -> str:
    parts = (item.file_name, item.noun, item.identity, item.caption, item.object_caption, item.drop_reason)
    return "\n".join(part for part in parts if part).lower()


def _by(name: str) -> Callable[[Item], Any]:
    fields = {"file name": "file_name", "class": "noun", "identity": "identity"}
    if name in fields:
        return lambda item: getattr(item, fields[name])
    return lambda item: item.numbers.get(name)


class Choices(NamedTuple):
    """What the filters can name."""

    states: list[str]
    nouns: list[str]
    identities: list[str]
    splits: list[str]
    said: list[str]
    numbers: list[str]


def choices(some: Sequence[Item]) -> Choices:
    """The values of all items."""

    def of(values: Iterable[str | None]) -> list[str]:
        found = set(values)
        return [ANY, *sorted(v for v in found if v), *([UNKNOWN] if None in found else [])]

    states = {reason_of(i.drop_reason) for i in some}
    return Choices(
        [ANY, *([KEPT] if KEPT in states else []), DROPPED, *sorted(states - {KEPT})], of(i.noun for i in some),
        of(i.identity for i in some), of(i.split for i in some), of(name for i in some for name in i.override),
        of(name for i in some for name in i.numbers),
    )  # fmt: skip
