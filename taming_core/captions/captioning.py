"""From photos to the rows of the captions table: caption, insert `<object>`, and score the match."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from taming_core.captions.attributes import Image
from taming_core.captions.drafts import Draft, Models, Photo, Target, draft_captions
from taming_core.drop_reasons import CAPTION_MISMATCH, NOT_DETECTED, PHOTO_CHANGED, with_details
from taming_core.language.placeholder import METHODS
from taming_core.params.caption import CaptionParams
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import file_name as photo_file_name
from taming_core.photos.files import photo_id_of, photo_path
from taming_core.photos.folder import PhotoFolder
from taming_core.photos.metadata import PhotoMetadata
from taming_core.tables import schema
from taming_core.tables.parquet import read_column

NEEDED = (
    "photo_id",
    "file_name",
    "photo_width",
    "object_id",
    "class",
    "box_xyxy",
    "given_caption",
    "photo_reason",
    "drop_reason",
)


@dataclass(frozen=True)
class CaptionSource:
    """A photo and its objects, before captioning."""

    path: Path
    file_name: str
    photo_id: str | None = None  # at the time of detection; None without an objects table
    targets: tuple[Target, ...] = ()  # from left to right; none for a regularization photo, which needs a caption only
    caption: str | None = None  # from the folder: metadata, or a text file beside the photo
    drop_reason: str | None = None


def list_sources(raw: PhotoFolder, objects: Path | None) -> list[CaptionSource]:
    """The photos of a folder; with an objects table in its order, each with its kept objects.

    Raises:
        TamingError: the table is of another version.
    """
    paths = {photo_file_name(path, raw.root): path for path in raw.photos}
    if objects is None:
        return [_bare_source(path, name, raw.metadata[name]) for name, path in paths.items()]
    table = chain.from_iterable(schema.iter_rows(objects, schema.OBJECTS, 1024, NEEDED))
    rows = ({**row, "row": number} for number, row in enumerate(table))
    detected = [_detected_source(raw, list(group)) for _, group in groupby(rows, _file_name)]
    missing = sorted(paths.keys() - {s.file_name for s in detected})
    dropped = [CaptionSource(paths[name], name, drop_reason=NOT_DETECTED) for name in missing]
    return detected + dropped


def _file_name(row: schema.Row) -> str:
    return row["file_name"]


def _bare_source(path: Path, name: str, metadata: PhotoMetadata) -> CaptionSource:
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
    targets = tuple(Target(r["object_id"], r["class"], r["row"]) for r in kept)
    given = caption or first["given_caption"]
    return CaptionSource(path, first["file_name"], first["photo_id"], targets, given, photo_reason)


def rows_of(sources: Sequence[CaptionSource], models: Models, p: CaptionParams) -> list[schema.Row]:
    """The rows of the captions table for some photos: one per kept object, or one for the photo."""
    batches = (sources[i : i + p.batch_size] for i in range(0, len(sources), p.batch_size))
    return [row for batch in batches for row in _batch_rows(batch, models, p)]


def _batch_rows(sources: Sequence[CaptionSource], models: Models, p: CaptionParams) -> Iterator[schema.Row]:
    """The rows of one batch of photos."""
    images = [_read(source) for source in sources]
    photos = [
        Photo(image, source.targets, (source.caption or "").strip() or None)
        for source, image in zip(sources, images, strict=True)
        if not isinstance(image, str)
    ]
    drafts = iter(draft_captions(photos, models, p))
    for source, image_or_reason in zip(sources, images, strict=True):
        targets = source.targets or (Target(),)
        if isinstance(image_or_reason, str):
            yield from (_row(source, target, None, image_or_reason) for target in targets)
        else:
            yield from (_drafted_row(source, t, d, p) for t, d in zip(targets, next(drafts), strict=True))


def _read(source: CaptionSource) -> Image | str:
    """The image, or its drop reason."""
    if source.drop_reason:
        return source.drop_reason
    try:
        photo = read_photo(source.path)
    except PhotoError as error:
        return str(error)
    return photo.image if source.photo_id in (None, photo.photo_id) else PHOTO_CHANGED


def _drafted_row(source: CaptionSource, target: Target, draft: Draft, p: CaptionParams) -> schema.Row:
    """A row with a caption; dropped if the captioner's caption does not match the photo."""
    mismatch = draft.score < p.match_min and not draft.given
    problem = with_details(CAPTION_MISMATCH, f"{draft.score:.3f}") if mismatch else None
    return _row(source, target, draft, problem)


def _row(source: CaptionSource, target: Target, draft: Draft | None, drop_reason: str | None) -> schema.Row:
    known = {
        "photo_id": source.photo_id or photo_id_of(source.path),
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


def count_methods(table: Path) -> dict[str, int]:
    """The number of captions per method, in order of preference."""
    counts = Counter(read_column(table, "method"))
    return {method: counts[method] for method in METHODS if counts[method]}


def table_state(table: Path | None) -> str:
    """A text that changes when the objects table is rewritten."""
    return f"{table.stat().st_size} {table.stat().st_mtime_ns}" if table else "no objects"
