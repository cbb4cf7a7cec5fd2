"""From photos to the rows of the captions table: what the models say, and how `<object>` got into it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from taming_core.language import placeholder
from taming_core.language.placeholder import ObjectCaption
from taming_core.params.sections import CaptionParams
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import file_name as photo_file_name
from taming_core.photos.files import list_photos, photo_id_of
from taming_core.photos.metadata import PhotoMetadata, read_metadata
from taming_core.tables import schema

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Captioner = Callable[[Sequence[Image], str], list[str]]  # photos and how to begin -> captions
Matcher = Callable[[Sequence[Image], Sequence[str]], NDArray[np.float32]]  # photos, captions -> probabilities
DEFAULT_NOUN = "object"  # the class of whatever has none
NEEDED = ("photo_id", "file_name", "photo_width", "object_id", "class", "box_xyxy", "given_caption", "drop_reason")


@dataclass(frozen=True)
class Target:
    """What a row speaks of: an object of known class, or whatever the caption is about."""

    object_id: str | None = None
    noun: str | None = None


@dataclass(frozen=True)
class CaptionSource:
    """What is known of a photo before it is captioned."""

    path: Path
    file_name: str
    photo_id: str | None = None  # at the time of detection; None where there was none
    targets: tuple[
        Target, ...
    ] = ()  # from left to right; none for a regularization photo, whose caption is all that counts
    given: str | None = None  # caption from the folder's metadata
    drop_reason: str | None = None


@dataclass(frozen=True)
class Draft:
    """One way to say it, and how well that fits the photo."""

    caption: str
    score: float  # in [0, 1]
    words: ObjectCaption | None = None  # None where no words stand for the object


@dataclass(frozen=True)
class CaptionRequest:
    """What is needed to word one row with an object."""

    image: Image
    noun: str
    photo_caption: Draft  # the photo's caption
    words: ObjectCaption | None  # where that caption names the object


def list_sources(raw: Path, objects: Path | None) -> list[CaptionSource]:
    """The photos of a folder; where there is an objects table, in its order, each with its kept objects.

    Raises:
        TamingError: no photos, wrong metadata, or a table that this version did not write.
    """
    paths = {photo_file_name(path, raw): path for path in list_photos(raw)}
    if objects is None:
        given = read_metadata(raw)
        return [_bare_source(path, name, given.get(name, PhotoMetadata())) for name, path in paths.items()]
    rows = chain.from_iterable(schema.iter_rows(objects, schema.OBJECTS, 1024, NEEDED))
    seen = [_detected_source(raw / name, list(group)) for name, group in groupby(rows, lambda r: r["file_name"])]
    unseen = sorted(paths.keys() - {s.file_name for s in seen})
    return seen + [CaptionSource(paths[name], name, drop_reason="photo is not in the objects table") for name in unseen]


def _bare_source(path: Path, name: str, said: PhotoMetadata) -> CaptionSource:
    return CaptionSource(path, name, targets=(Target(noun=said.noun),), given=said.caption)


def _detected_source(path: Path, rows: Sequence[schema.Row]) -> CaptionSource:
    """One photo from its rows in the objects table; a photo without kept objects is a regularization one."""
    first = rows[0]
    kept = [r for r in rows if r["object_id"] and r["drop_reason"] is None]
    kept.sort(key=lambda r: r["box_xyxy"][0] + r["box_xyxy"][2])
    unread = first["drop_reason"] if first["photo_width"] is None else None
    targets = tuple(Target(r["object_id"], r["class"]) for r in kept)
    return CaptionSource(path, first["file_name"], first["photo_id"], targets, first["given_caption"], unread)


def rows_of(
    sources: Sequence[CaptionSource], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[schema.Row]:
    """The rows of the captions table for some photos: one per kept object, or one for the photo."""
    batches = (sources[i : i + p.batch_size] for i in range(0, len(sources), p.batch_size))
    return [row for batch in batches for row in _batch_rows(batch, describe, match, p)]


def _batch_rows(
    sources: Sequence[CaptionSource], describe: Captioner, match: Matcher, p: CaptionParams
) -> Iterator[schema.Row]:
    """The rows of photos that are in memory together."""
    read = [_read(source) for source in sources]
    seen = [(source, image) for source, image in zip(sources, read, strict=True) if not isinstance(image, str)]
    said = _captions([source for source, _ in seen], [image for _, image in seen], describe, match)
    asks = [_requests(source, image, draft, p) for (source, image), draft in zip(seen, said, strict=True)]
    drafts = iter(word_captions(list(chain.from_iterable(asks)), describe, match, p))
    plain = iter(said)
    for source, image_or_reason in zip(sources, read, strict=True):
        if isinstance(image_or_reason, str):
            yield from (_row(source, t, None, image_or_reason) for t in source.targets or (Target(),))
            continue
        draft = next(plain)
        for target in source.targets:
            yield _drafted_row(source, target, next(drafts), p)
        if not source.targets:
            yield _drafted_row(source, Target(), draft, p)


def _read(source: CaptionSource) -> Image | str:
    """The picture, or the reason why it gets no caption."""
    if source.drop_reason:
        return source.drop_reason
    try:
        found = read_photo(source.path)
    except PhotoError as error:
        return str(error)
    return found.image if source.photo_id in (None, found.photo_id) else "photo changed since detection"


def _captions(
    sources: Sequence[CaptionSource], images: Sequence[Image], describe: Captioner, match: Matcher
) -> list[Draft]:
    """Each photo's caption, the given one or the captioner's, in plain words."""
    silent = [i for i, s in enumerate(sources) if s.given is None]
    said = dict(zip(silent, describe([images[i] for i in silent], ""), strict=True))
    return _scored(images, [said.get(i) or _plain(s) for i, s in enumerate(sources)], match)


def _plain(source: CaptionSource) -> str:
    """The given caption with a class in place of `<object>`, should it hold one."""
    noun = source.targets[0].noun if source.targets else None
    given = source.given or ""
    tagged = placeholder.read_given(given, noun or DEFAULT_NOUN)
    return tagged.caption if tagged else given


def _scored(images: Sequence[Image], texts: Sequence[str], match: Matcher) -> list[Draft]:
    return [Draft(text, float(score)) for text, score in zip(texts, match(images, texts), strict=True)]


def _requests(source: CaptionSource, image: Image, photo_caption: Draft, p: CaptionParams) -> list[CaptionRequest]:
    """One per target, with the words that the photo's caption has for it: the ladder's first rung."""
    nouns = [t.noun for t in source.targets]
    named = iter(placeholder.name_objects(photo_caption.caption, [n for n in nouns if n], p.replace))
    found = [next(named) if n else placeholder.head_object(photo_caption.caption, p.replace) for n in nouns]
    tagged = [placeholder.read_given(source.given or "", n or DEFAULT_NOUN) for n in nouns]
    return [
        CaptionRequest(image, n or DEFAULT_NOUN, photo_caption, t or w)
        for n, t, w in zip(nouns, tagged, found, strict=True)
    ]


def word_captions(
    requests: Sequence[CaptionRequest], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[Draft]:
    """For each ask the first rung of the ladder that holds: `<object>` is in, and the match score is `p.match_min`.

    1. noun: words of the photo's caption name the class; where there is no class, head: what the caption is about.
    2. conditional: the captioner goes on from "a photo of a CLASS", and these words become the object.
    3. template: `p.template`, with the scene that the photo's caption tells, if that caption matched.
    Nothing stands below the template: it is returned even if it does not match, and its row is dropped for that.
    """
    drafts = [Draft(a.photo_caption.caption, a.photo_caption.score, a.words) for a in requests]
    for rung in (partial(_conditional, describe=describe), _template):
        weak = [n for n, d in enumerate(drafts) if d.words is None or d.score < p.match_min]
        for n, draft in zip(weak, rung([requests[n] for n in weak], match=match, p=p), strict=True):
            drafts[n] = draft
    return drafts


def _conditional(
    requests: Sequence[CaptionRequest], describe: Captioner, match: Matcher, p: CaptionParams
) -> list[Draft]:
    """The second rung; the captioner takes one beginning at a time."""
    texts = [""] * len(requests)
    for noun in dict.fromkeys(a.noun for a in requests):
        places = [n for n, a in enumerate(requests) if a.noun == noun]
        said = describe([requests[n].image for n in places], placeholder.prefix_for(noun))
        for n, text in zip(places, said, strict=True):
            texts[n] = text
    scored = _scored([a.image for a in requests], texts, match)
    words = [placeholder.name_object(d.caption, a.noun, p.replace) for d, a in zip(scored, requests, strict=True)]
    return [replace(d, words=w and replace(w, method="conditional")) for d, w in zip(scored, words, strict=True)]


def _template(requests: Sequence[CaptionRequest], match: Matcher, p: CaptionParams) -> list[Draft]:
    """The third rung."""
    scenes = [
        placeholder.scene(a.photo_caption.caption) if a.photo_caption.score >= p.match_min else "" for a in requests
    ]
    words = [placeholder.fill_template(p.template, a.noun, where) for a, where in zip(requests, scenes, strict=True)]
    scored = _scored([a.image for a in requests], [w.caption for w in words], match)
    return [replace(d, words=w) for d, w in zip(scored, words, strict=True)]


def _drafted_row(source: CaptionSource, target: Target, draft: Draft, p: CaptionParams) -> schema.Row:
    """A row with a caption; dropped if that does not match the photo."""
    problem = f"caption does not match: {draft.score:.3f}" if draft.score < p.match_min else None
    return _row(source, target, draft, problem)


def _row(source: CaptionSource, target: Target, draft: Draft | None, drop_reason: str | None) -> schema.Row:
    words = draft.words if draft else None
    return {
        "photo_id": source.photo_id or photo_id_of(source.path),
        "file_name": source.file_name,
        "object_id": target.object_id,
        "class": target.noun,
        "caption": draft.caption if draft else None,
        "match_score": draft.score if draft else None,
        "object_caption": words.object_caption if words else None,
        "replaced": words.replaced if words else None,
        "span_start": words.start if words else None,
        "span_end": words.end if words else None,
        "method": words.method if words else None,
        "drop_reason": drop_reason,
    }


def count_methods(table: Path) -> dict[str, int]:
    """How many captions got their `<object>` by each method, in the ladder's order."""
    found = Counter(pq.read_table(table, columns=["method"]).column("method").to_pylist())
    return {method: found[method] for method in placeholder.METHODS if found[method]}


def table_state(table: Path | None) -> str:
    """What changes when the objects table is written again."""
    return f"{table.stat().st_size} {table.stat().st_mtime_ns}" if table else "no objects"
