"""From photos to the rows of the captions table: caption, insert `<object>`, and score the match."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taming_core.captions.attributes import Attribute, Image
from taming_core.drop_reasons import CAPTION_MISMATCH, NOT_DETECTED, PHOTO_CHANGED, with_details
from taming_core.language import placeholder
from taming_core.language.placeholder import ObjectCaption
from taming_core.params.sections import CaptionParams
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import file_name as photo_file_name
from taming_core.photos.files import list_photos, photo_id_of
from taming_core.photos.metadata import PhotoMetadata, read_metadata
from taming_core.tables import schema
from taming_core.tables.parquet import read_column

Captioner = Callable[[Sequence[Image], str], list[str]]  # photos, prefix -> captions
Matcher = Callable[[Sequence[Image], Sequence[str]], NDArray[np.float32]]  # photos, captions -> probabilities
DEFAULT_NOUN = "object"  # the class of an object without one
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
class Target:
    """The subject of a row: an object of a class, or the subject of the caption if there is no class."""

    object_id: str | None = None
    noun: str | None = None
    row: int | None = None  # in the objects table


@dataclass(frozen=True)
class CaptionSource:
    """A photo and its objects, before captioning."""

    path: Path
    file_name: str
    photo_id: str | None = None  # at the time of detection; None without an objects table
    targets: tuple[Target, ...] = ()  # from left to right; none for a regularization photo, which needs a caption only
    caption: str | None = None  # from the folder's metadata
    drop_reason: str | None = None


@dataclass(frozen=True)
class Draft:
    """A candidate caption and its match score."""

    caption: str
    score: float  # in [0, 1]
    words: ObjectCaption | None = None  # None if no words name the object
    attributes: tuple[Attribute, ...] | None = None  # None if none were looked for


@dataclass(frozen=True)
class CaptionRequest:
    """The inputs for the caption of one object."""

    image: Image
    noun: str
    photo_caption: Draft
    words: ObjectCaption | None  # the words of that caption that name the object
    row: int | None = None  # in the objects table


Finish = Callable[[Sequence[CaptionRequest], Sequence[Draft]], list[Draft]]


def list_sources(raw: Path, objects: Path | None) -> list[CaptionSource]:
    """The photos of a folder; with an objects table in its order, each with its kept objects.

    Raises:
        TamingError: there are no photos, the metadata is invalid, or the table is of another version.
    """
    paths = {photo_file_name(path, raw): path for path in list_photos(raw)}
    if objects is None:
        metadata = read_metadata(raw)
        return [_bare_source(path, name, metadata.get(name, PhotoMetadata())) for name, path in paths.items()]
    table = chain.from_iterable(schema.iter_rows(objects, schema.OBJECTS, 1024, NEEDED))
    rows = ({**row, "row": number} for number, row in enumerate(table))
    detected = [_detected_source(raw / name, list(group)) for name, group in groupby(rows, _file_name)]
    missing = sorted(paths.keys() - {s.file_name for s in detected})
    dropped = [CaptionSource(paths[name], name, drop_reason=NOT_DETECTED) for name in missing]
    return detected + dropped


def _file_name(row: schema.Row) -> str:
    return row["file_name"]


def _bare_source(path: Path, name: str, metadata: PhotoMetadata) -> CaptionSource:
    return CaptionSource(path, name, targets=(Target(noun=metadata.noun),), caption=metadata.caption)


def _detected_source(path: Path, rows: Sequence[schema.Row]) -> CaptionSource:
    """One photo from its rows in the objects table; a photo without kept objects is a regularization photo."""
    first = rows[0]
    kept = [r for r in rows if r["object_id"] and r["drop_reason"] is None]
    kept.sort(key=lambda r: r["box_xyxy"][0] + r["box_xyxy"][2])
    photo_reason = first["drop_reason"] if first["photo_width"] is None else first["photo_reason"]
    targets = tuple(Target(r["object_id"], r["class"], r["row"]) for r in kept)
    return CaptionSource(path, first["file_name"], first["photo_id"], targets, first["given_caption"], photo_reason)


def rows_of(
    sources: Sequence[CaptionSource],
    describe: Captioner,
    match: Matcher,
    p: CaptionParams,
    finish: Finish | None = None,
) -> list[schema.Row]:
    """The rows of the captions table for some photos: one per kept object, or one for the photo.

    `finish` may change the drafts of objects, as `attribute_words.with_attributes` does.
    """
    batches = (sources[i : i + p.batch_size] for i in range(0, len(sources), p.batch_size))
    return [row for batch in batches for row in _batch_rows(batch, describe, match, p, finish)]


def _batch_rows(
    sources: Sequence[CaptionSource],
    describe: Captioner,
    match: Matcher,
    p: CaptionParams,
    finish: Finish | None,
) -> Iterator[schema.Row]:
    """The rows of one batch of photos."""
    images = [_read(source) for source in sources]
    readable = [(source, image) for source, image in zip(sources, images, strict=True) if not isinstance(image, str)]
    captions = _caption_photos([source for source, _ in readable], [image for _, image in readable], describe, match)
    requests = [
        request
        for (source, image), draft in zip(readable, captions, strict=True)
        for request in _requests(source, image, draft, p)
    ]
    drafts = word_captions(requests, describe, match, p)
    object_drafts = iter(drafts if finish is None else finish(requests, drafts))
    photo_drafts = iter(captions)
    for source, image_or_reason in zip(sources, images, strict=True):
        if isinstance(image_or_reason, str):
            yield from (_row(source, t, None, image_or_reason) for t in source.targets or (Target(),))
            continue
        draft = next(photo_drafts)
        for target in source.targets:
            yield _drafted_row(source, target, next(object_drafts), p)
        if not source.targets:
            yield _drafted_row(source, Target(), draft, p)


def _read(source: CaptionSource) -> Image | str:
    """The image, or its drop reason."""
    if source.drop_reason:
        return source.drop_reason
    try:
        photo = read_photo(source.path)
    except PhotoError as error:
        return str(error)
    return photo.image if source.photo_id in (None, photo.photo_id) else PHOTO_CHANGED


def _caption_photos(
    sources: Sequence[CaptionSource], images: Sequence[Image], describe: Captioner, match: Matcher
) -> list[Draft]:
    """Each photo's caption from the metadata or else the captioner, without `<object>`."""
    missing = [i for i, s in enumerate(sources) if s.caption is None]
    described = dict(zip(missing, describe([images[i] for i in missing], ""), strict=True))
    return score(images, [described.get(i) or _plain_caption(s) for i, s in enumerate(sources)], match)


def _plain_caption(source: CaptionSource) -> str:
    """The metadata caption, with a class noun in place of `<object>`."""
    noun = source.targets[0].noun if source.targets else None
    caption = source.caption or ""
    tagged = placeholder.parse_tagged_caption(caption, noun or DEFAULT_NOUN)
    return tagged.caption if tagged else caption


def score(images: Sequence[Image], texts: Sequence[str], match: Matcher) -> list[Draft]:
    """The texts as drafts, scored against their images."""
    return [Draft(text, float(score)) for text, score in zip(texts, match(images, texts), strict=True)]


def _requests(source: CaptionSource, image: Image, photo_caption: Draft, p: CaptionParams) -> list[CaptionRequest]:
    """One per target, with the words of the photo's caption that name it: step 1 of `word_captions`."""
    nouns = [t.noun for t in source.targets]
    named = iter(placeholder.name_objects(photo_caption.caption, [n for n in nouns if n], p.replace))
    words = [next(named) if n else placeholder.head_object(photo_caption.caption, p.replace) for n in nouns]
    tagged = [placeholder.parse_tagged_caption(source.caption or "", n or DEFAULT_NOUN) for n in nouns]
    return [
        CaptionRequest(image, target.noun or DEFAULT_NOUN, photo_caption, t or w, target.row)
        for target, t, w in zip(source.targets, tagged, words, strict=True)
    ]


def word_captions(
    requests: Sequence[CaptionRequest], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[Draft]:
    """For each request the first method that yields `<object>` and a match score of at least `p.match_min`.

    1. noun: words of the photo's caption name the class; without a class, head: the subject of the caption.
    2. conditional: the captioner continues "a photo of a CLASS", and the class is replaced.
    3. template: `p.template`, followed by the scene of the photo's caption, if that caption matched.
    A template that does not match is returned too; its row is dropped.
    """
    drafts = [Draft(r.photo_caption.caption, r.photo_caption.score, r.words) for r in requests]
    for method in (partial(_conditional, describe=describe), _template):
        weak = [n for n, d in enumerate(drafts) if d.words is None or d.score < p.match_min]
        for n, draft in zip(weak, method([requests[n] for n in weak], match=match, p=p), strict=True):
            drafts[n] = draft
    return drafts


def _conditional(
    requests: Sequence[CaptionRequest], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[Draft]:
    """Step 2 of `word_captions`; the captioner takes one prefix per call."""
    texts = [""] * len(requests)
    for noun in dict.fromkeys(r.noun for r in requests):
        places = [n for n, r in enumerate(requests) if r.noun == noun]
        described = describe([requests[n].image for n in places], placeholder.prefix_for(noun))
        for n, text in zip(places, described, strict=True):
            texts[n] = text
    scored = score([r.image for r in requests], texts, match)
    words = [placeholder.name_object(d.caption, r.noun, p.replace) for d, r in zip(scored, requests, strict=True)]
    return [replace(d, words=w and replace(w, method="conditional")) for d, w in zip(scored, words, strict=True)]


def _template(requests: Sequence[CaptionRequest], match: Matcher, p: CaptionParams) -> list[Draft]:
    """Step 3 of `word_captions`."""
    scenes = [
        placeholder.scene(r.photo_caption.caption) if r.photo_caption.score >= p.match_min else "" for r in requests
    ]
    words = [placeholder.fill_template(p.template, r.noun, scene) for r, scene in zip(requests, scenes, strict=True)]
    scored = score([r.image for r in requests], [w.caption for w in words], match)
    return [replace(d, words=w) for d, w in zip(scored, words, strict=True)]


def _drafted_row(source: CaptionSource, target: Target, draft: Draft, p: CaptionParams) -> schema.Row:
    """A row with a caption; dropped if the caption does not match the photo."""
    problem = with_details(CAPTION_MISMATCH, f"{draft.score:.3f}") if draft.score < p.match_min else None
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
    return {method: counts[method] for method in placeholder.METHODS if counts[method]}


def table_state(table: Path | None) -> str:
    """A text that changes when the objects table is rewritten."""
    return f"{table.stat().st_size} {table.stat().st_mtime_ns}" if table else "no objects"
