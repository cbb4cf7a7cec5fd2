"""What frozen parts say of the rows, computed before the first step and kept below runs/ (docs/caches.md).

An entry is named by a digest of all that goes into it, its folder by one of the weights that made it: whatever changes
is another name, and computed anew.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.fingerprints import versions
from taming_core.model.inputs import Shown, subject_pixels
from taming_core.model.subject_model import SubjectModel, posterior
from taming_core.params.train import Cache, TrainParams
from taming_core.tables import shards
from taming_core.tables.row_images import seen
from taming_core.tables.rows import Rows
from taming_core.tables.schema import Row
from taming_core.training.batches import Caches, TokenIds, caption_of, image_key, pixels, subject_key, text_key
from taming_core.training.checkpoint import absorb
from taming_core.training.feature_store import Entry, Store, find, full, holds, open_store, write_shard
from taming_core.weights.device import DTYPES

READ_OF_ENCODER = ("projector", "mean", "std", "size")  # keys of its config that change what the tower says

Asked = tuple[str, Callable[[], Tensor]]  # a key, and what makes the input that it names


@dataclass(frozen=True)
class Kind:
    """One kind of entries."""

    store: Store
    asked: Callable[[Row], Iterable[Asked]]  # what a row needs
    said: Callable[[Tensor], Sequence[Entry]]  # what the frozen part says of a batch of inputs


def kinds(
    model: SubjectModel, p: TrainParams, token_ids: TokenIds, shown: Shown, size: int
) -> dict[Cache, Kind]:  # fmt: skip
    """What `train.cache` names; `size` is the side of the subject in pixels."""
    dtype = DTYPES[p.precision]
    made: dict[Cache, tuple[Any, Any]] = {
        "latents": (image_asked, partial(latents_said, model)),
        "text": (partial(text_asked, p=p, shown=shown, token_ids=token_ids), partial(text_said, model, dtype)),
        "tower": (partial(tower_asked, shown=shown, size=size), partial(tower_said, model, dtype)),
    }
    return {kind: Kind(open_store(shards.RUNS / "cache" / name_of(kind, model, p)), *made[kind]) for kind in p.cache}


def opened(found: Mapping[Cache, Kind]) -> Caches:
    """The caches as they are on disk now."""
    return Caches(**{kind: open_store(one.store.folder) for kind, one in found.items()})


def name_of(kind: Cache, model: SubjectModel, p: TrainParams) -> str:
    """The folder of a kind, which changes with weights, config and code of the parts that make it."""
    encoder = model.object_encoder
    parts: list[tuple[nn.Module, Any]]
    if kind == "latents":
        parts = [(model.family.vae, dict(model.family.vae.config))]
    elif kind == "text":
        silence = {"silence": model.family.token_ids([""]).tolist()}  # which a family may treat by itself
        parts = [(m, m.config.to_dict() | silence) for m in model.family.text_encoders.values()]
    else:
        read = {key: encoder.config[key] for key in READ_OF_ENCODER}
        parts = [(encoder.vision, encoder.vision.config.to_dict() | read)]
    digest = blake2b(json.dumps([p.precision, versions()]).encode(), digest_size=8)
    for part, config in parts:
        digest.update(json.dumps({**config, "_name_or_path": None}, sort_keys=True, default=str).encode())
        absorb(digest, part)
    return f"{kind}-{digest.hexdigest()}"


def share_of(rows: Rows, p: TrainParams, rank: int, count: int) -> list[int]:
    """Of the rows that some batch may show, those that process `rank` of `count` fills in; neighbours on disk."""
    numbers = [int(n) for n in (*rows.objects, *(rows.general if p.general > 0 else ()))]
    return numbers[len(numbers) * rank // count : len(numbers) * (rank + 1) // count]


def image_asked(row: Row) -> Iterator[Asked]:
    """A row's target."""
    yield image_key(row["image"]), partial(pixels, row["image"])


def text_asked(row: Row, p: TrainParams, shown: Shown, token_ids: TokenIds) -> Iterator[Asked]:
    """All that the text may say of a row."""
    states = {present for present in (True, False) if may_be(present, row, p)}
    said = {caption_of(row, present, p) for present in states}
    if p.text_drop > 0:
        said |= {shown.silence if present else "" for present in states}
    for ids in token_ids(sorted(said)):
        yield text_key(ids), partial(torch.clone, ids)


def may_be(present: bool, row: Row, p: TrainParams) -> bool:
    """Whether a row's object embedding is ever shown, or ever left out."""
    return not row["general"] and p.object_drop < 1 if present else row["general"] or p.object_drop > 0


def tower_asked(row: Row, shown: Shown, size: int) -> Iterator[Asked]:
    """A row's subject as it is; changed copies differ each time."""
    if not row["general"]:
        subject = subject_pixels(seen(row, shown.background), size)
        yield subject_key(subject), partial(torch.clone, subject)


def latents_said(model: SubjectModel, images: Tensor) -> Sequence[Entry]:
    """The posterior of each image, from which training draws with the noise of each step."""
    return [{"mean": mean, "std": std} for mean, std in zip(*posterior(model, images), strict=True)]


def text_said(model: SubjectModel, dtype: torch.dtype, ids: Tensor) -> Sequence[Entry]:
    """The text encoders' states and summary of each prompt."""
    found = {name: v.to(dtype) for name, v in model.family.text(ids)._asdict().items() if v is not None}
    return [{name: value[i] for name, value in found.items()} for i in range(len(ids))]


def tower_said(model: SubjectModel, dtype: torch.dtype, subjects: Tensor) -> Sequence[Entry]:
    """What the projector reads of each subject."""
    return [{"features": states} for states in model.object_encoder.states(subjects).to(dtype)]


@torch.no_grad()
def fill(
    kind: Kind, rows: Iterable[Row], batch_size: int, device: torch.device, counts: Counter[str]
) -> Iterator[int]:  # fmt: skip
    """Compute what is missing or damaged, and yield how many rows are done; `counts` takes what was `damaged`.

    What one process does not see another has done is done twice, which does no harm.

    Args:
        kind: what to fill.
        rows: those of this process.
        batch_size: of training's micro-batches: batches of the same size give the same numbers to the last bit.
        device: where the model is.
        counts: of entries.
    """
    entries, asked_before = dict[str, Entry](), set[str]()
    waiting: defaultdict[torch.Size, dict[str, Tensor]] = defaultdict(dict)  # inputs of one size go together
    counts["damaged"] += kind.store.unreadable
    for done, row in enumerate(rows, 1):
        for key, make in kind.asked(row):
            if key in asked_before or (asked_before.add(key), find(kind.store, key))[1] is not None:
                continue
            counts["damaged"] += holds(kind.store, key)
            given = make()
            group = waiting[given.shape]
            group[key] = given
            if len(group) == batch_size:
                entries |= said_of(kind, group, batch_size, device)
                group.clear()
        if full(entries):
            write_shard(kind.store.folder, entries)
            entries = {}
        yield done
    for group in filter(None, waiting.values()):
        entries |= said_of(kind, group, batch_size, device)
    if entries:
        write_shard(kind.store.folder, entries)


def said_of(kind: Kind, group: Mapping[str, Tensor], batch_size: int, device: torch.device) -> dict[str, Entry]:
    """The entries of some inputs, made in one batch that is filled up with the last of them."""
    given = list(group.values())
    batch = torch.stack([*given, *given[-1:] * (batch_size - len(given))]).to(device)
    found = kind.said(batch)[: len(given)]
    return {
        key: {name: value.cpu() for name, value in entry.items()} for key, entry in zip(group, found, strict=True)
    }  # fmt: skip


def parked(model: SubjectModel, p: TrainParams, rows: Rows) -> dict[str, nn.Module]:
    """The parts that no step needs, for all that they say is cached; they may wait in the CPU's memory.

    `reference` reads subjects with the autoencoder and is told silence by the text encoders; the identity loss decodes.

    Raises:
        TamingError: every part is at work all the same.
    """
    if not p.offload:
        return {}
    found: dict[str, nn.Module] = {}
    if model.object_encoder.config["injection"] != "reference":
        found |= {"vae": model.family.vae} if "latents" in p.cache and p.identity_weight == 0 else {}
        found |= model.family.text_encoders if "text" in p.cache else {}
    if "tower" in p.cache and not stands_in(rows, p):
        found["tower"] = model.object_encoder.vision
    if not found:
        raise TamingError("train.offload has no effect: each part whose output is cached is needed for something else "
                          "(docs/caches.md). Set it to false.")  # fmt: skip
    return found


def stands_in(rows: Rows, p: TrainParams) -> bool:
    """Whether changed copies, which no cache knows, stand in for views that some row lacks."""
    wanted = p.references if p.cross_reference > 0 else p.references - 1
    views = rows.column("references")
    return any(len(views[n]) < wanted for n in rows.objects)


def park(parts: Mapping[str, nn.Module]) -> None:
    """Send parts to the CPU's memory."""
    for part in parts.values():
        part.to("cpu")


@contextmanager
def at_work(parts: Mapping[str, nn.Module], device: torch.device) -> Iterator[None]:
    """Within, parts are on the device."""
    for part in parts.values():
        part.to(device)
    try:
        yield
    finally:
        park(parts)
