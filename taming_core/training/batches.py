"""Rows to examples to batches: which rows a step sees, and what of them the model is told (docs/method.md, section 4).

`batch_at(step)` depends on nothing but rows, params and step, so a run can go on at any step.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT, without_attributes
from taming_core.model.inputs import Shown, subject_pixels
from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, frame, mask_of, opened, seen
from taming_core.tables.rows import Rows
from taming_core.tables.schema import Row
from taming_core.training.augmentation import changed
from taming_core.training.feature_store import Entry, Store, any_entry, find, key_of
from taming_core.training.sampler import row_at

CLASS_TOKEN = f"a photo of a {OBJECT}"


@dataclass(frozen=True)
class Example:
    """One row as tensors; without an object mask, subject and view are zero."""

    row_id: str
    target: Float[Tensor, "3 height width"] | None  # x in [-1, 1]
    mask: Float[Tensor, "1 height width"]  # m in {0, 1}
    caption: str
    present: bool  # whether the object embedding is shown
    subject: Float[Tensor, "references 3 size size"]  # o in [-1, 1], photos that the encoder sees together
    view: Float[Tensor, "3 size size"]  # o', cut out: what the identity loss compares with
    frame: Float[Tensor, "4"]  # x0, y0, x1, y1 of the target, in pixels: the square that frames the object like `view`
    latents: Entry | None = None  # in the place of `target`, where they are cached
    features: tuple[Tensor | None, ...] = ()  # of each photo of the subject that is cached


@dataclass(frozen=True)
class Batch:
    """Examples side by side, with what caches know of them."""

    row_ids: tuple[str, ...]
    target: Float[Tensor, "batch 3 height width"] | None  # None where its latents are cached
    mask: Float[Tensor, "batch 1 height width"]
    tokens: Int[Tensor, "batch length"]
    present: Bool[Tensor, " batch"]
    subject: Float[Tensor, "batch references 3 size size"]
    view: Float[Tensor, "batch 3 size size"]
    frame: Float[Tensor, "batch 4"]
    mean: Float[Tensor, "batch channels rows columns"] | None = None  # of the target's latents
    std: Float[Tensor, "batch channels rows columns"] | None = None
    states: Float[Tensor, "batch length width"] | None = None  # of the text
    pooled: Float[Tensor, "batch features"] | None = None
    features: Float[Tensor, "batch references *states features"] | None = None  # of the tower; zero where not known
    known: Bool[Tensor, "batch references"] | None = None  # whose features are cached


@dataclass(frozen=True)
class Caches:
    """What frozen parts have said (`cache`); None where it is computed in each step."""

    latents: Store | None = None  # by `image_key`
    text: Store | None = None  # by `text_key`
    tower: Store | None = None  # by `subject_key`


NONE = Caches()
BatchAt = Callable[[int], Batch]
TokenIds = Callable[[Sequence[str]], Int[Tensor, "batch length"]]


def batch_at(
    step: int,
    rows: Rows,
    token_ids: TokenIds,
    size: int,
    p: TrainParams,
    shown: Shown,
    share: slice = slice(None),
    caches: Caches = NONE,
) -> Batch:
    """The batch of one step.

    `size` is the side of the subject in pixels, and `share` the places of the batch that this process computes.
    """
    positions = range(step * p.batch_size, (step + 1) * p.batch_size)[share]
    examples = [example(rows, row_at(rows, n, p), n, size, p, shown, caches) for n in positions]
    return collate(examples, token_ids, caches)


def require_rows(rows: Rows, p: TrainParams) -> None:
    """Refuse rows that this training cannot live on.

    Raises:
        TamingError: there are no object rows; or no general ones though they are asked for, or some where `prior` is.
    """
    if not len(rows.objects):
        raise TamingError(
            "No training row holds an object. Add photos, or lower materialize.validation and materialize.test."
        )
    if p.general > 0 and p.prior is None and not len(rows.general):
        raise TamingError(f"train.general is {p.general}, but there are no general-domain rows. Set it to 0, or run "
                          "`taming materialize --general FOLDER`, or have train.prior images drawn.")  # fmt: skip
    if p.prior is not None and len(rows.general):
        raise TamingError(f"train.prior is {p.prior}, but the rows hold {len(rows.general)} general-domain ones. Set "
                          "it to null, or run `taming materialize` without --general.")  # fmt: skip


def sides(rows: Rows) -> list[int]:
    """All widths and heights of targets, in pixels."""
    return sorted({side for b in rows.buckets for side in (b.width, b.height)})


def side(rows: Rows) -> int:
    """Pixels of the side of a square target; where there is none, of the shortest side there is."""
    squares = [b.width for b in rows.buckets if b.width == b.height]
    return max(squares) if squares else sides(rows)[0]


def example(
    rows: Rows, number: int, position: int, size: int, p: TrainParams, shown: Shown, caches: Caches = NONE
) -> Example:
    """The row as an example, with what regularized joint training drops and swaps (docs/method.md, section 4)."""
    row, rng = rows[number], np.random.default_rng(seed_for(p.seed, "example", position))
    cross, drop_object, drop_text = rng.random(3)
    present = bool(not row["general"] and drop_object >= p.object_drop)
    silence = shown.silence if present else ""
    found = Example(
        row_id=row["row_id"], target=None if caches.latents else pixels(row["image"]), present=present,
        mask=torch.zeros(1, row["height"], row["width"]),
        latents=kept(caches.latents, image_key(row["image"])) if caches.latents else None,
        caption=silence if drop_text < p.text_drop else caption_of(row, present, p),
        subject=torch.zeros(p.references, 3, size, size), view=torch.zeros(3, size, size), frame=torch.zeros(4),
    )  # fmt: skip
    return with_object(found, rows, row, bool(cross < p.cross_reference), rng, p, shown, caches) if present else found


def caption_of(row: Row, present: bool, p: TrainParams) -> str:
    """What the text says of a row whose object embedding is `present`."""
    plain, hidden = row["caption"] or "", row["object_caption"] or ""
    if not p.attributes and not row["general"]:
        plain, hidden = without_attributes(plain, hidden)
    # Without its embedding `<object>` would say nothing, so the plain caption speaks.
    if not present or p.captions == "plain":
        return plain
    return CLASS_TOKEN if p.captions == "class_token" else hidden


def with_object(
    found: Example, rows: Rows, row: Row, cross: bool, rng: np.random.Generator, p: TrainParams, shown: Shown,
    caches: Caches,
) -> Example:  # fmt: skip
    """The example with subject, view and mask; `cross` asks for a subject from other views of the identity."""
    size, others = found.view.shape[-1], row["references"]
    view = opened((other(rows, str(rng.choice(others))) if others else row)["subject"])
    views, stand_ins = references(rows, row, cross, rng, p, shown.background)
    subjects = [subject_pixels(s, size) for s in (*views, *stand_ins)]
    known = [kept(caches.tower, subject_key(s)) for s in subjects[: len(views)]] if caches.tower else []
    mask = mask_of(row)
    return replace(
        found, mask=torch.from_numpy(mask)[None].float(), view=subject_pixels(view, size),
        subject=torch.stack(subjects),
        features=(*(k["features"] for k in known), *(None for _ in subjects[len(known) :])),
        frame=torch.from_numpy(frame(mask, np.asarray(view)[..., 3] >= 128)),
    )  # fmt: skip


def references(
    rows: Rows, row: Row, cross: bool, rng: np.random.Generator, p: TrainParams, background: Background
) -> tuple[list[Image.Image], list[Image.Image]]:
    """The photos that the encoder sees together, each of another view, and changed copies in the place of missing ones.

    With `cross` the row's own view is left out, else it comes first.
    """
    own = [] if cross else [row]
    count = min(p.references - len(own), len(row["references"]))
    drawn = rng.choice(row["references"], count, replace=False)
    views = [seen(r, background) for r in (*own, *(other(rows, str(name)) for name in drawn))]
    models = views or [seen(row, background)]
    missing = range(p.references - len(views))
    return views, [changed(models[i % len(models)], p.stand_in, rng) for i in missing]


def other(rows: Rows, row_id: str) -> Row:
    """The row with this row_id."""
    return rows[rows.find(row_id)]


def pixels(image: bytes) -> Float[Tensor, "3 height width"]:
    """An encoded picture in [-1, 1]."""
    array = np.asarray(Image.open(BytesIO(image)).convert("RGB"), np.float32)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1).contiguous()


def collate(examples: Sequence[Example], token_ids: TokenIds, caches: Caches = NONE) -> Batch:
    """The examples as one batch."""
    names, tokens = ("mask", "subject", "view", "frame"), token_ids([e.caption for e in examples])
    targets = [e.target for e in examples if e.target is not None]
    told = [e.latents for e in examples if e.latents is not None]
    said = [kept(caches.text, text_key(ids)) for ids in tokens] if caches.text else []
    return Batch(
        row_ids=tuple(e.row_id for e in examples),
        target=torch.stack(targets) if targets else None,
        tokens=tokens,
        present=torch.tensor([e.present for e in examples]),
        **{name: torch.stack([getattr(e, name) for e in examples]) for name in names},
        **{name: torch.stack([entry[name] for entry in told]) for name in ("mean", "std") if told},
        **{
            name: torch.stack([entry[name] for entry in said])
            for name in ("states", "pooled")
            if said and name in said[0]
        },
        **features_of(examples, caches.tower),
    )


def features_of(examples: Sequence[Example], tower: Store | None) -> dict[str, Tensor]:
    """The fields `features` and `known` of a batch, where there is a cache for them."""
    if tower is None or (like := any_entry(tower)) is None:
        return {}
    blank = torch.zeros_like(like["features"])
    # An example without an object has none.
    rows = [e.features or (None,) * len(e.subject) for e in examples]
    return {
        "features": torch.stack([torch.stack([blank if f is None else f for f in row]) for row in rows]),
        "known": torch.tensor([[f is not None for f in row] for row in rows]),
    }


def image_key(image: bytes) -> str:
    """What names the latents of an encoded target, cropped and sized as it is."""
    return key_of(image)


def text_key(ids: Int[Tensor, " length"]) -> str:
    """What names the states of a prompt's token ids."""
    return key_of(ids.numpy().tobytes())


def subject_key(subject: Float[Tensor, "3 size size"]) -> str:
    """What names the tower's features of a photo's pixels."""
    return key_of(subject.contiguous().numpy().tobytes())


def kept(store: Store, key: str) -> Entry:
    """A cached entry.

    Raises:
        TamingError: it was damaged or removed after training began.
    """
    found = find(store, key)
    if found is None:
        raise TamingError(f"A cached entry in {store.folder} was damaged or removed, or the rows were changed, while "
                          "training ran. Run the same command again: it goes on where it stopped.")  # fmt: skip
    return found


def depth(device: torch.device) -> int:
    """How many batches to make ahead, each by a thread: few where the device is the very processor that makes them."""
    return 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def ahead(make: BatchAt, steps: int, depth: int) -> BatchAt:
    """`make`, with the next `depth` batches made by threads while the device works; stops short of step `steps`."""
    pool = ThreadPoolExecutor(depth)
    waiting: deque[tuple[int, Future[Batch]]] = deque()

    def batch_of(step: int) -> Batch:
        while waiting and waiting[0][0] != step:  # a jump: what was made for other steps is of no use
            waiting.popleft()[1].cancel()
        if not waiting:
            waiting.append((step, pool.submit(make, step)))
        last = waiting[-1][0]
        waiting.extend((n, pool.submit(make, n)) for n in range(last + 1, min(step + depth + 1, steps)))
        return waiting.popleft()[1].result()

    return batch_of
