"""The sources of rows: photos with their objects, photos with a caption only, and a folder of text-image pairs."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from shutil import copyfile
from typing import Any, TypeAlias

from taming_core.engine.manifest import is_large
from taming_core.engine.processes import in_child
from taming_core.engine.run import automatic_workers, cores
from taming_core.files import replacing
from taming_core.params.engine import EngineOptions
from taming_core.params.sections import MaterializeParams
from taming_core.photos.files import file_name, find_copies, folder_state
from taming_core.photos.folder import list_photos, read_folder
from taming_core.photos.folder_notes import notes
from taming_core.rows import database, index
from taming_core.rows.index import caption_of, check_split, first_value, key_of
from taming_core.storage.filesystem import file_state
from taming_core.storage.paths import AnyPath, is_remote
from taming_core.tables import schema, shards
from taming_core.tables.row_ranges import RowsBetween, range_reader

OBJECT_COLUMNS = (
    "file_name", "photo_id", "object_id", "photo_width", "class", "identity", "box_xyxy", "mask_png", "drop_reason",
)  # fmt: skip
CAPTION_COLUMNS = ("file_name", "photo_id", "object_id", "caption", "drop_reason")
BATCH = 8  # sources whose rows are gathered at once; those ahead wait in memory
TABLES = """
create table pairs (number integer primary key, file_name text, caption text, split text, copy_of text);
create table notes (line text);
create table shards (number integer primary key, kind text, start int, stop int, sources int);
"""


@dataclass(frozen=True)
class MaterializeInputs:
    """The inputs of `taming materialize`."""

    raw: AnyPath  # folder of photos
    objects: AnyPath  # table
    captions: AnyPath  # table
    regularization: AnyPath | None  # folder of text-image pairs

    def state(self) -> list[str]:
        """Texts that change when a photo or a table is rewritten.

        Raises:
            TamingError: a table does not exist or is another one, or there are no raw photos.
        """
        for table, expected in ((self.objects, schema.OBJECTS), (self.captions, schema.CAPTIONS)):
            schema.open_table(table, expected).close()
        list_photos(self.raw)
        folders = [folder_state(folder) for folder in (self.raw, self.regularization) if folder]
        return [*map(file_state, (self.objects, self.captions)), *folders]


@dataclass(frozen=True)
class PhotoObjects:
    """The objects of one photo that become rows, or the photo itself if it has none; rows of the objects table."""

    objects: tuple[schema.Row, ...]


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo without an object; a row of the captions table."""

    caption: schema.Row


@dataclass(frozen=True)
class TextImagePair:
    """A photo of the regularization folder."""

    file_name: str
    caption: str | None
    split: str
    copy_of: str | None  # file name of a raw photo, or an earlier pair, with the same bytes


Source: TypeAlias = PhotoObjects | CaptionedPhoto | TextImagePair


def state_of(inputs: MaterializeInputs) -> list[str]:
    """`inputs.state()`; of large folders by a process of its own, with which the memory of the listing goes."""
    folders = (folder for folder in (inputs.raw, inputs.regularization) if folder)
    return in_child(inputs.state) if any(map(is_large, folders)) else inputs.state()


def local(state: AnyPath) -> Path:
    """The folder of databases, which are on this machine even if other state is in a store."""
    return shards.RUNS / state.name


def list_sources(
    state: AnyPath, inputs: MaterializeInputs, p: MaterializeParams, options: EngineOptions
) -> "RowSources":
    """The sources of all rows, in an index that is built once, and found again after a crash.

    Args:
        state: the folder of resumable state.
        inputs: what is indexed.
        p: the params.
        options: of the engine, whose processes read the index, on other machines perhaps.

    Raises:
        TamingError: as `build_index`.
    """
    path = local(state) / "index.sqlite"
    if not path.exists():
        in_child(build_index, path, inputs, p) if is_large(inputs.raw) else build_index(path, inputs, p)
    if is_remote(state) and options.engine == "ray":
        shared = state / path.name
        with replacing(shared) as part:
            copyfile(path, part)
        path = shared
    return RowSources(inputs.objects, inputs.captions, path)


def with_all_cores(options: EngineOptions, sources: int) -> EngineOptions:
    """The options, where they leave the workers open with one for each core: there are no models beside them."""
    automatic = options.engine == "local" and options.workers is None and automatic_workers(sources) > 0
    return replace(options, workers=cores()) if automatic else options


def notes_of(db: sqlite3.Connection) -> list[str]:
    """The lines about the regularization folder, for the end of the stage."""
    return [line for (line,) in db.execute("select line from notes order by rowid")]


def build_index(path: Path, inputs: MaterializeInputs, p: MaterializeParams) -> None:
    """Write the index of all inputs, a file that any number of processes read; memory does not grow with them.

    Raises:
        TamingError: as `index.fill` and `read_folder`.
        OSError: of the operating system, such as a full disk.
    """
    with database.writing(path) as db:
        index.fill(db, inputs.objects, inputs.captions, p)
        db.executescript(TABLES)
        if inputs.regularization:
            _list_pairs(db, inputs.regularization, inputs.raw)
        db.executemany("insert into shards (kind, start, stop, sources) values (?, ?, ?, ?)", _shards(db, inputs, p))


def _list_pairs(db: sqlite3.Connection, regularization: AnyPath, raw: AnyPath) -> None:
    """Fill the tables `pairs` and `notes`; the default split is train."""
    folder = read_folder(regularization)
    originals = find_copies(read_folder(raw).sizes | folder.sizes)
    pairs = ((file_name(path, folder.root), originals.get(path)) for path in folder.photos)
    rows = (
        (name, (pair := folder.of(name)).caption, check_split(pair.split or "train"),
         original and file_name(original, original.parent))
        for name, original in pairs
    )  # fmt: skip
    db.executemany("insert into pairs (file_name, caption, split, copy_of) values (?, ?, ?, ?)", rows)
    db.executemany("insert into notes values (?)", ((line,) for line in notes(folder)))


def _shards(
    db: sqlite3.Connection, inputs: MaterializeInputs, p: MaterializeParams
) -> Iterator[tuple[str, int, int, int]]:
    """Kind, range of rows and number of sources of each shard that has any, in order."""
    tables = (("objects", inputs.objects, schema.OBJECTS), ("captions", inputs.captions, schema.CAPTIONS))
    for kind, path, expected in tables:
        start, columns = 0, ["file_name", "photo_id", "object_id", "drop_reason"]
        columns += ["photo_width"] if kind == "objects" else []
        for rows in schema.iter_rows(path, expected, p.shard_size, columns):
            if sources := SOURCES[kind](rows, db):
                yield kind, start, start + len(rows), len(sources)
            start += len(rows)
    (pairs,) = db.execute("select count(*) from pairs").fetchone()
    for start in range(0, pairs, p.shard_size):
        stop = min(start + p.shard_size, pairs)
        yield "pairs", start, stop, stop - start


@dataclass(frozen=True)
class RowSources:
    """The sources of all shards, those of objects first: `taming_core.engine.work.Sources`."""

    objects: AnyPath
    captions: AnyPath
    index: AnyPath

    @property
    def db(self) -> sqlite3.Connection:
        """The index, see `build_index`."""
        return database.reading(self.index)

    def __len__(self) -> int:
        """The number of sources."""
        return self._value("select coalesce(sum(sources), 0) from shards")

    def shard_count(self) -> int:
        """The number of shards that they make."""
        return self._value("select count(*) from shards")

    def count(self, number: int) -> int:
        """The number of sources of one shard."""
        return self._value("select sources from shards where number = ?", number + 1)

    def shard(self, number: int) -> list[Source]:
        """The sources of one shard."""
        db = self.db
        kind, *bounds = db.execute("select kind, start, stop from shards where number = ?", (number + 1,)).fetchone()
        if kind == "pairs":
            query = "select file_name, caption, split, copy_of from pairs where number > ? and number <= ?"
            return [TextImagePair(*row) for row in db.execute(query + " order by number", bounds)]
        return SOURCES[kind](self._readers[kind](*bounds), db)

    def _value(self, query: str, *values: int) -> int:
        return self.db.execute(query, values).fetchone()[0]

    @cached_property
    def _readers(self) -> dict[str, RowsBetween]:
        return {
            "objects": range_reader(self.objects, schema.OBJECTS, OBJECT_COLUMNS),
            "captions": range_reader(self.captions, schema.CAPTIONS, CAPTION_COLUMNS),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without open files."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def photo_objects(rows: Sequence[schema.Row], db: sqlite3.Connection) -> list[Source]:
    """The photos of some rows of the objects table, each once: the objects of a photo are adjacent.

    Objects that detection dropped make no row; their reason is in the objects table.
    """
    kept = (o for o in rows if _becomes_row(o, db))
    return [PhotoObjects(tuple(o)) for _, o in groupby(kept, lambda o: (o["file_name"], o["photo_id"]))]


def _becomes_row(o: schema.Row, db: sqlite3.Connection) -> bool:
    """False for a dropped object, and for a photo without objects whose caption makes a row of its own."""
    if o["object_id"]:
        return o["drop_reason"] is None
    return o["photo_width"] is None or caption_of(db, o["file_name"]) is None


def captioned_photos(rows: Sequence[schema.Row], db: sqlite3.Connection) -> list[Source]:
    """The photos of some rows of the captions table that `photo_objects` has not.

    An object that is in the captions table only is among them, and will be dropped.
    """
    query = "select key from objects where key = ? and (object_id is not null or photo_width is null)"
    return [CaptionedPhoto(c) for c in rows if first_value(db, query, key_of(c)) is None]


SOURCES: dict[str, Callable[[Sequence[schema.Row], sqlite3.Connection], list[Source]]] = {
    "objects": photo_objects,
    "captions": captioned_photos,
}
