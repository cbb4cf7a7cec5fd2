"""Rows to examples to batches: which rows a step sees, and what of them the model is told (docs/method.md, section 4).

`batch_at(step)` depends on nothing but rows, params and step, so a run can go on at any step.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from taming_core.captions import without_attributes
from taming_core.conditions import OBJECT, Shown, subject_pixels
from taming_core.errors import TamingError
from taming_core.rows import Rows
from taming_core.schema import Row
from taming_core.seeds import seed_for
from taming_core.stand_in import changed
from taming_core.train_params import TrainParams
from taming_core.triplets import Background, frame, mask_of, opened, seen

CLASS_TOKEN = f"a photo of a {OBJECT}"


@dataclass(frozen=True)
class Example:
    """One row as tensors; without an object mask, subject and view are zero."""

    row_id: str
    target: Float[Tensor, "3 height width"]  # x in [-1, 1]
    mask: Float[Tensor, "1 height width"]  # m in {0, 1}
    caption: str
    present: bool  # whether the object embedding is shown
    subject: Float[Tensor, "references 3 size size"]  # o in [-1, 1], photos that the encoder sees together
    view: Float[Tensor, "3 size size"]  # o', cut out: what the identity loss compares with
    frame: Float[Tensor, "4"]  # x0, y0, x1, y1 of the target, in pixels: the square that frames the object like `view`


@dataclass(frozen=True)
class Batch:
    """Examples side by side."""

    row_ids: tuple[str, ...]
    target: Float[Tensor, "batch 3 height width"]
    mask: Float[Tensor, "batch 1 height width"]
    tokens: Int[Tensor, "batch length"]
    present: Bool[Tensor, " batch"]
    subject: Float[Tensor, "batch references 3 size size"]
    view: Float[Tensor, "batch 3 size size"]
    frame: Float[Tensor, "batch 4"]


BatchAt = Callable[[int], Batch]
TokenIds = Callable[[Sequence[str]], Int[Tensor, "batch length"]]


def batch_at(
    step: int, rows: Rows, token_ids: TokenIds, size: int, p: TrainParams, shown: Shown
) -> Batch:
    """The batch of one step; `size` is the side of the subject in pixels."""
    positions = range(step * p.batch_size, (step + 1) * p.batch_size)
    return collate([example(rows, row_at(rows, n, p), n, size, p, shown) for n in positions], token_ids)


def row_at(rows: Rows, position: int, p: TrainParams) -> int:
    """The number of the row that stands at `position` of the whole training.

    General rows are spread evenly among the others; both kinds are reshuffled each time they are used up.
    """
    earlier = int(position * p.general)
    if int((position + 1) * p.general) > earlier:
        return int(rows.general[shuffled(len(rows.general), p.seed, "general order", earlier)])
    return int(rows.objects[shuffled(len(rows.objects), p.seed, "order", position - earlier)])


def shuffled(count: int, seed: int, purpose: str, position: int) -> int:
    """What stands at `position` when the numbers below `count` are shuffled anew in every epoch."""
    epoch, place = divmod(position, count)
    return int(_permutation(count, seed_for(seed, purpose, epoch))[place])


@lru_cache(maxsize=4)  # two kinds of rows, and the batches at the border of two epochs
def _permutation(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count)


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


def side(rows: Rows) -> int:
    """Pixels of a target's side, which is the same in all rows."""
    return opened(rows[0]["image"]).width


def example(rows: Rows, number: int, position: int, size: int, p: TrainParams, shown: Shown) -> Example:
    """The row as an example, with what regularized joint training drops and swaps (docs/method.md, section 4)."""
    row, rng = rows[number], np.random.default_rng(seed_for(p.seed, "example", position))
    cross, drop_object, drop_text = rng.random(3)
    present = bool(not row["general"] and drop_object >= p.object_drop)
    silence = shown.silence if present else ""
    target = pixels(row["image"])
    found = Example(
        row_id=row["row_id"], target=target, mask=torch.zeros(1, *target.shape[1:]), present=present,
        caption=silence if drop_text < p.text_drop else caption_of(row, present, p),
        subject=torch.zeros(p.references, 3, size, size), view=torch.zeros(3, size, size), frame=torch.zeros(4),
    )  # fmt: skip
    return with_object(found, rows, row, bool(cross < p.cross_reference), rng, p, shown) if present else found


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
    found: Example, rows: Rows, row: Row, cross: bool, rng: np.random.Generator, p: TrainParams, shown: Shown
) -> Example:
    """The example with subject, view and mask; `cross` asks for a subject from other views of the identity."""
    size, others = found.view.shape[-1], row["references"]
    view = opened((other(rows, str(rng.choice(others))) if others else row)["subject"])
    subjects = references(rows, row, cross, rng, p, shown.background)
    mask = mask_of(row)
    return replace(
        found, mask=torch.from_numpy(mask)[None].float(), view=subject_pixels(view, size),
        subject=torch.stack([subject_pixels(s, size) for s in subjects]),
        frame=torch.from_numpy(frame(mask, np.asarray(view)[..., 3] >= 128)),
    )  # fmt: skip


def references(
    rows: Rows, row: Row, cross: bool, rng: np.random.Generator, p: TrainParams, background: Background
) -> list[Image.Image]:
    """The photos that the encoder sees together, each of another view; changed copies stand in for those missing.

    With `cross` the row's own view is left out, else it comes first.
    """
    own = [] if cross else [row]
    count = min(p.references - len(own), len(row["references"]))
    drawn = rng.choice(row["references"], count, replace=False)
    views = [seen(r, background) for r in (*own, *(other(rows, str(name)) for name in drawn))]
    models = views or [seen(row, background)]
    missing = range(p.references - len(views))
    return [*views, *(changed(models[i % len(models)], p.stand_in, rng) for i in missing)]


def other(rows: Rows, row_id: str) -> Row:
    """The row with this row_id."""
    return rows[rows.find(row_id)]


def pixels(image: bytes) -> Float[Tensor, "3 height width"]:
    """An encoded picture in [-1, 1]."""
    array = np.asarray(Image.open(BytesIO(image)).convert("RGB"), np.float32)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1).contiguous()


def collate(examples: Sequence[Example], token_ids: TokenIds) -> Batch:
    """The examples as one batch."""
    names = ("target", "mask", "subject", "view", "frame")
    return Batch(
        row_ids=tuple(e.row_id for e in examples),
        tokens=token_ids([e.caption for e in examples]),
        present=torch.tensor([e.present for e in examples]),
        **{name: torch.stack([getattr(e, name) for e in examples]) for name in names},
    )


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
