"""A raw folder of world photos with their ground truth: for demos, tests, benchmarks and training without models.

Photo k of identity i is a function of (seed, split, i, k) and of the params alone. Photos are written in chunks, each
with a file of metadata lines that is written last, so that an interrupted run goes on at the first chunk without one.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.files import remove, replacing, write_text
from taming_core.fingerprints import hash_of
from taming_core.language.placeholder import OBJECT
from taming_core.objects.filters import measure
from taming_core.params.sections import WorldParams
from taming_core.photos.masks import encode_mask
from taming_core.photos.view_hash import difference_hash, thumbnail
from taming_core.seeds import seed_for
from taming_core.tables import schema
from taming_core.tables.parquet import read_table
from taming_core.world.artwork import Pictures, World
from taming_core.world.photos import Photos, Subject, photos_of
from taming_core.world.plan import Chances, Colour, Plan, generator, object_words, plan, plan_of, recolour

AT_ONCE = 32  # photos per batch
CHUNK = 8 * AT_ONCE  # photos that a crash can lose
TRUTH = {"objects": schema.OBJECTS, "captions": schema.CAPTIONS}  # tables of the ground truth
PAIRS = "general"  # seed purpose of the text-image pairs


@dataclass(frozen=True)
class Identity:
    """One individual object: artwork in a colour, mirrored or not."""

    name: str  # name of its folder: "blue-squirrel-noto"
    cutout: int
    colour: Colour | None
    mirrored: bool


@dataclass(frozen=True)
class Shot:
    """One photo to be written."""

    file_name: str
    identities: tuple[str | None, ...]  # of the objects, from left to right; None in a text-image pair
    plan: Plan

    @property
    def main(self) -> int:
        """The number of the object that the photo's folder is named after; 0 in a text-image pair."""
        return next((i for i, name in enumerate(self.identities) if name == Path(self.file_name).parent.name), 0)


def chances_of(p: WorldParams) -> Chances:
    """The params of how photos vary."""
    return Chances(**p.model_dump(include=set(Chances.__dataclass_fields__)))


def identities(world: World, count: int, split: str, p: WorldParams) -> list[Identity]:
    """`count` different objects of a split: every cut-out once, in random order, then all of them in other colours.

    Raises TamingError if the split has no artwork.
    """
    candidates = np.random.default_rng(seed_for(p.seed, f"world/{split}/order", 0)).permutation(world.of_split(split))
    by_name: dict[str, Identity] = {}
    for number in range(count):
        rng = generator(p.seed, f"{split}/identity", number)
        cutout, again = int(candidates[number % len(candidates)]), number >= len(candidates)
        colour = recolour(rng) if rng.random() < p.recolor or again else None
        art = world.cutouts[cutout]
        name = "-".join([*object_words(art, colour).split(), art.design])
        unique = name if name not in by_name else f"{name}-{number}"
        by_name[unique] = Identity(unique, cutout, colour, bool(rng.random() < p.mirror))
    return list(by_name.values())


def shots(world: World, count: int, split: str, p: WorldParams) -> Iterator[Shot]:
    """`count` photos, `p.views` of each identity, in one folder per identity; some show another identity beside it."""
    chances, known = chances_of(p), identities(world, -(-count // p.views), split, p)
    for i, identity in enumerate(known):
        for k in range(min(p.views, count - i * p.views)):
            shown = beside(i, known, generator(p.seed, f"{split}/beside/{identity.name}", k), p)
            rng = generator(p.seed, f"{split}/photo/{identity.name}", k)
            colours, mirrored = [o.colour for o in shown], [o.mirrored for o in shown]
            photo_plan = plan_of(world, [o.cutout for o in shown], rng, chances, colours, mirrored)
            yield Shot(f"{identity.name}/{k}.jpg", tuple(o.name for o in shown), photo_plan)


def beside(number: int, known: Sequence[Identity], rng: np.random.Generator, p: WorldParams) -> list[Identity]:
    """The identities that a photo of identity `number` shows, from left to right: this one, and perhaps another."""
    if len(known) < 2 or rng.random() >= p.two_objects:
        return [known[number]]
    other = int(rng.integers(len(known) - 1))
    shown = [known[number], known[other + (other >= number)]]
    return shown if rng.random() < 0.5 else shown[::-1]


def pairs(world: World, count: int, split: str, p: WorldParams) -> Iterator[Shot]:
    """`count` text-image pairs of random objects, some with two of them."""
    candidates, chances = world.of_split(split), chances_of(p)
    for k in range(count):
        photo_plan = plan(world, candidates, generator(p.seed, f"{split}/{PAIRS}", k), chances)
        yield Shot(f"{k:05}.jpg", (None,) * len(photo_plan.objects), photo_plan)


def write(
    world: World, pictures: Pictures, shots: Iterable[Shot], licences: dict[str, str], out: Path, state: Path,
    p: WorldParams, truth: str | None = None,
) -> Iterator[int]:  # fmt: skip
    """Write the photos into `out`, and what `finish` joins into `state`; yields the number of photos done.

    Chunks that are in `state` are not rendered again. `truth` is the split if tables of the ground truth are wanted.
    """
    state.mkdir(parents=True, exist_ok=True)
    done = 0
    for number, chunk in enumerate(_parts(shots, CHUNK)):
        lines = state / f"{number:06}.jsonl"
        if not lines.exists():
            made = list(_render(world, pictures, chunk, licences, out, p, truth))
            for kind, expected in TRUTH.items() if truth else ():
                rows = [row for one in made for row in one[kind]]
                schema.write([schema.table(rows, expected)], expected, state / f"{number:06}.{kind}")
            write_text(lines, "".join(f"{json.dumps(line)}\n" for one in made for line in one["lines"]))
        done += len(chunk)
        yield done


def _parts(items: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _render(
    world: World, pictures: Pictures, shots: Sequence[Shot], licences: dict[str, str], out: Path, p: WorldParams,
    truth: str | None,
) -> Iterator[dict[str, list[Any]]]:  # fmt: skip
    """Write photos, batch by batch; yields lines of metadata, and rows of both tables if `truth` is given."""
    for batch in _parts(shots, AT_ONCE):
        photos = photos_of(world, pictures, [s.plan for s in batch], p.size)
        images = zip(photos.image.numpy(), batch, strict=True)
        ids = [_save(image, out / shot.file_name, p.quality) for image, shot in images]
        yield {
            "lines": [
                _line(shot, subjects, masks.numpy(), licences, pair=shot.identities[0] is None)
                for shot, subjects, masks in zip(batch, photos.objects, photos.masks, strict=True)
            ],
            "objects": [] if truth is None else list(object_rows(batch, photos, ids, truth)),
            "captions": [] if truth is None else list(caption_rows(batch, photos, ids)),
        }


def finish(state: Path, out: Path, truth: Path | None, fingerprint: str) -> None:
    """Join what `write` left in `state`: the tables of the ground truth, then metadata.jsonl; and remove `state`."""
    for kind, expected in TRUTH.items():
        tables = (read_table(path) for path in sorted(state.glob(f"*.{kind}")))
        if truth is not None:
            schema.write(tables, schema.add_fingerprint(expected, fingerprint), truth / f"{kind}.parquet")
    with replacing(out / "metadata.jsonl") as part, part.open("wb") as file:
        for path in sorted(state.glob("*.jsonl")):
            file.write(path.read_bytes())
    remove(state)


def _save(image: NDArray[np.uint8], path: Path, quality: int) -> str:
    """Write a JPEG; returns its photo id, the hash of the file."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
    return hash_of(file.getvalue())


def _line(
    shot: Shot, subjects: Sequence[Subject], masks: NDArray[np.bool_], licences: dict[str, str], pair: bool
) -> dict[str, Any]:
    """A photo's line of metadata; the caption is a column for text-image pairs only, else part of the ground truth."""
    truth = {
        "caption": shot.plan.caption,
        "object_caption": shot.plan.object_caption,
        "scene": shot.plan.scene,
        "style": shot.plan.style,
        "objects": [
            {"name": s.name, "class": s.noun, "words": s.words, "design": s.design, "box_xyxy": list(s.box_xyxy),
             "mask": run_lengths(m)}
            for s, m in zip(subjects, masks, strict=True)
        ],
    }  # fmt: skip
    licence = sorted({licences[shot.plan.scene], *(licences[s.design] for s in subjects)})
    columns = {"caption": shot.plan.caption} if pair else {
        "identity": shot.identities[shot.main], "class": subjects[shot.main].noun
    }  # fmt: skip
    return {"file_name": shot.file_name, **columns, "licence": " AND ".join(licence), "truth": truth}


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """A mask (H, W) in COCO's uncompressed RLE: column by column, the lengths of runs of False and True in turn.

    >>> run_lengths(np.array([[False, True], [True, True]]))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def object_rows(batch: Sequence[Shot], photos: Photos, ids: Sequence[str], split: str) -> Iterator[schema.Row]:
    """The objects table of a perfect `taming detect`; every object has its own identity.

    Objects of the unseen splits go to the test split.
    """
    images = photos.image.numpy()
    for shot, photo_id, image, subjects, masks in zip(batch, ids, images, photos.objects, photos.masks, strict=True):
        height, width = masks.shape[1:]
        hashes = {"photo_hash": f"{difference_hash(image):016x}", "photo_thumbnail": thumbnail(image)}
        for i, (subject, mask) in enumerate(zip(subjects, masks.numpy(), strict=True)):
            measures = measure(subject.box_xyxy, 1.0, subject.noun, mask, 1.0)
            yield dict.fromkeys(schema.OBJECTS.names) | {
                "photo_id": photo_id,
                "file_name": shot.file_name,
                "photo_width": width,
                "photo_height": height,
                **hashes,
                "identity": shot.identities[i],
                "object_id": f"{photo_id}-{i}",
                "class": subject.noun,
                "score": 1.0,
                "box_xyxy": list(subject.box_xyxy),
                "mask_png": encode_mask(mask),
                "mask_quality": 1.0,
                "mask_source": "given",
                "area_fraction": measures.area_fraction,
                "mask_fill": measures.mask_fill,
                "given_split": None if split == "train" else "test",
            }


def caption_rows(batch: Sequence[Shot], photos: Photos, ids: Sequence[str]) -> Iterator[schema.Row]:
    """The captions table of a perfect `taming caption`."""
    for shot, photo_id, subjects in zip(batch, ids, photos.objects, strict=True):
        for i, subject in enumerate(subjects):
            columns = _caption_columns(shot.plan, i, subject.words)
            keys = {"photo_id": photo_id, "file_name": shot.file_name, "object_id": f"{photo_id}-{i}"}
            yield dict.fromkeys(schema.CAPTIONS.names) | keys | {"class": subject.noun} | dict(columns)


def _caption_columns(plan: Plan, number: int, words: str) -> schema.Row:
    """Both captions and the span of the words that `<object>` replaces; the article before them may differ."""
    object_caption = plan.object_captions[number]
    start = plan.caption.index(words, object_caption.index(OBJECT) - 1)
    return {
        "caption": plan.caption,
        "match_score": 1.0,
        "object_caption": object_caption,
        "replaced": words,
        "span_start": start,
        "span_end": start + len(words),
        "method": "noun",
    }
