"""From photos to the rows of the captions table: caption, insert `<object>`, and score the match."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from taming_core.captions.drafts import Draft, Models, Photo, Target, draft_captions
from taming_core.drop_reasons import CAPTION_MISMATCH, NOT_DETECTED, PHOTO_CHANGED, with_details
from taming_core.engine import manifest
from taming_core.engine.manifest import Listing
from taming_core.language.placeholder import METHODS
from taming_core.params.caption import CaptionParams
from taming_core.photos import decode
from taming_core.photos.files import photo_id_of, photo_path, tree_state
from taming_core.photos.folder import PhotoFolder, read_folder
from taming_core.photos.folder_notes import notes
from taming_core.photos.metadata import PhotoMetadata
from taming_core.storage.filesystem import file_state
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import iter_column

NEEDED = (
    "photo_id",
    "file_name",
    "photo_width",
    "object_id",
    "class",
    "box_xyxy",
    "given_caption",
    "photo_reason",
    "override_caption",
    "drop_reason",
)
MANIFEST = pa.schema([
    pa.field("file_name", pa.string(), nullable=False),
    *(pa.field(name, pa.string()) for name in ("photo_id", "caption", "drop_reason")),
    pa.field("targets", pa.list_(pa.struct([("object_id", pa.string()), ("noun", pa.string()), ("row", pa.int64()),
                                                ("caption", pa.string())]))),
])  # fmt: skip


@dataclass(frozen=True)
class CaptionSource:
    """A photo and its objects, before captioning."""

    path: AnyPath
    file_name: str
    photo_id: str | None = None  # at the time of detection; None without an objects table
    targets: tuple[Target, ...] = ()  # from left to right; none for a regularization photo, which needs a caption only
    caption: str | None = None  # from the folder: metadata, or a text file beside the photo
    drop_reason: str | None = None


def list_sources(raw: PhotoFolder, objects: AnyPath | None) -> list[CaptionSource]:
    """The photos of a folder; with an objects table in its order, each with its kept objects.

    Raises:
        TamingError: the table is of another version.
    """
    paths = dict(zip(raw.metadata, raw.photos, strict=True))
    if objects is None:
        return [_bare_source(path, name, raw.metadata[name]) for name, path in paths.items()]
    table = chain.from_iterable(schema.iter_rows(objects, schema.OBJECTS, 1024, NEEDED))
    rows = ({**row, "row": number} for number, row in enumerate(table))
    detected = [_detected_source(raw, list(group)) for _, group in groupby(rows, _file_name)]
    missing = sorted(paths.keys() - {s.file_name for s in detected})
    dropped = [CaptionSource(paths[name], name, drop_reason=NOT_DETECTED) for name in missing]
    return detected + dropped


def list_folder(raw: AnyPath, objects: AnyPath | None, path: Path, p: CaptionParams) -> Listing:
    """List the photos below a folder, with the kept objects of a table, into the manifest `path`.

    Raises:
        TamingError: there is no photo, the metadata is wrong, or the table is of another version.
    """
    folder = read_folder(raw)
    count = manifest.write(map(_as_row, list_sources(folder, objects)), MANIFEST, path, p.shard_size)
    return Listing(path, count, tree_state(folder.tree), notes(folder))


def _as_row(source: CaptionSource) -> schema.Row:
    return {name: getattr(source, name) for name in MANIFEST.names} | {"targets": [asdict(t) for t in source.targets]}


def source_of(row: schema.Row, raw: AnyPath) -> CaptionSource:
    """The photo of a row of the manifest."""
    values: dict[str, Any] = {**row, "targets": tuple(Target(**target) for target in row["targets"])}
    return CaptionSource(photo_path(raw, row["file_name"]), **values)


def _file_name(row: schema.Row) -> str:
    return row["file_name"]


def _bare_source(path: AnyPath, name: str, metadata: PhotoMetadata) -> CaptionSource:
    target = Target(noun=metadata.noun)
    return CaptionSource(path, name, targets=(target,), caption=metadata.caption, drop_reason=metadata.left_out)


def _detected_source(raw: PhotoFolder, rows: Sequence[schema.Row]) -> CaptionSource:
    """One photo from its rows in the objects table; a photo without kept objects is a regularization photo.

    Its caption is what the folder says now, or else what it said at the time of detection.
    """
    first = rows[0]
    path, caption = photo_path(raw.root, first["file_name"]), raw.of(first["file_name"]).caption
    kept = [r for r in rows if r["object_id"] and r["drop_reason"] is None]
    kept.sort(key=lambda r: r["box_xyxy"][0] + r["box_xyxy"][2])
    photo_reason = first["drop_reason"] if first["photo_width"] is None else first["photo_reason"]
    targets = tuple(Target(r["object_id"], r["class"], r["row"], r["override_caption"]) for r in kept)
    given = caption or first["given_caption"]
    return CaptionSource(path, first["file_name"], first["photo_id"], targets, given, photo_reason)


def prepare(source: CaptionSource) -> decode.Photo | str:
    """The photo, or its drop reason."""
    if source.drop_reason:
        return source.drop_reason
    try:
        photo = decode.read_photo(source.path)
    except decode.PhotoError as error:
        return str(error)
    return replace(photo, opaque=None) if source.photo_id in (None, photo.photo_id) else PHOTO_CHANGED


def rows_of(
    photos: Sequence[tuple[CaptionSource, decode.Photo | str]], models: Models, p: CaptionParams
) -> list[schema.Row]:
    """The rows of the captions table for one batch of photos: one per kept object, or one for the photo."""
    readable = [
        Photo(read.image, source.targets, (source.caption or "").strip() or None)
        for source, read in photos
        if not isinstance(read, str)
    ]
    drafts = iter(draft_captions(readable, models, p))
    return [
        row
        for source, read in photos
        for row in (_dropped_rows(source, read) if isinstance(read, str) else _rows(source, read, next(drafts), p))
    ]


def _dropped_rows(source: CaptionSource, reason: str) -> Iterator[schema.Row]:
    photo_id = source.photo_id or photo_id_of(source.path)
    return (_row(source, photo_id, target, None, reason) for target in _targets(source))


def _rows(
    source: CaptionSource, photo: decode.Photo, drafts: Sequence[Draft], p: CaptionParams
) -> Iterator[schema.Row]:
    return (_drafted_row(source, photo.photo_id, t, d, p) for t, d in zip(_targets(source), drafts, strict=True))


def _targets(source: CaptionSource) -> tuple[Target, ...]:
    """What the photo has a row for: its objects, or else itself."""
    return source.targets or (Target(),)


def _drafted_row(source: CaptionSource, photo_id: str, target: Target, draft: Draft, p: CaptionParams) -> schema.Row:
    """A row with a caption; dropped if the captioner's caption does not match the photo."""
    mismatch = draft.score < p.match_min and not draft.given
    problem = with_details(CAPTION_MISMATCH, f"{draft.score:.3f}") if mismatch else None
    return _row(source, photo_id, target, draft, problem)


def _row(
    source: CaptionSource, photo_id: str, target: Target, draft: Draft | None, drop_reason: str | None
) -> schema.Row:
    known = {
        "photo_id": photo_id,
        "file_name": source.file_name,
        "object_id": target.object_id,
        "class": target.noun,
    }
    return with_draft({**known, "drop_reason": drop_reason}, draft)


def with_draft(row: schema.Row, draft: Draft | None) -> schema.Row:
    """A row with the columns of a draft."""
    words = draft.words if draft else None
    return {
        **row,
        "caption": draft.caption if draft else None,
        "match_score": draft.score if draft else None,
        "object_caption": words.object_caption if words else None,
        "replaced": words.replaced if words else None,
        "span_start": words.start if words else None,
        "span_end": words.end if words else None,
        "method": words.method if words else None,
        "attributes": None if draft is None or draft.attributes is None else [a.as_row() for a in draft.attributes],
    }


def count_methods(table: AnyPath) -> dict[str, int]:
    """The number of captions per method, in order of preference."""
    counts = Counter(iter_column(table, "method"))
    return {method: counts[method] for method in METHODS if counts[method]}


def table_state(table: AnyPath | None) -> str:
    """A text that changes when the objects table is rewritten."""
    return file_state(table) if table else "no objects"
