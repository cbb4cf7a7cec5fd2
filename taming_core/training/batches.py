"""Rows to examples to batches: a step's rows, and the model's inputs of them (docs/explanation/method.md section 4).

`batch_at(step)` depends on rows, params and step alone, so that a run can resume at any step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.language.placeholder import OBJECT, drop_attributes, replace_both
from taming_core.model.inputs import Batch, EncoderInputs, subject_pixels
from taming_core.model.subject_model import SubjectModel
from taming_core.params.train import CollageParams, TrainParams
from taming_core.photos.masks import mask_box
from taming_core.seeds import seed_for
from taming_core.tables.row_images import encoder_image, object_frame, open_mask, open_rgba
from taming_core.tables.rows import Rows
from taming_core.tables.schema import Row
from taming_core.training.augmentation import augment
from taming_core.training.feature_store import Entry, FeatureStore, find, first_valid_entry, key_of
from taming_core.training.sampler import row_at

CLASS_TOKEN = f"a photo of a {OBJECT}"
# The columns that an example reads of its own row, and of another view of its object by the background of subjects.
ROW = ("row_id", "image", "width", "height", "mask", "subject", "caption", "object_caption", "regularization",
       "references", "photo_height", "photo_width", "crop_top", "crop_left")  # fmt: skip
VIEW = {"removed": ("subject",), "kept": ("image", "mask", "subject")}


@dataclass(frozen=True)
class Example:
    """One row as tensors; without an object mask, subject and view are zero, as is a mask that no loss reads."""

    row_id: str
    target: Float[Tensor, "3 height width"] | None  # x in [-1, 1]
    mask: Float[Tensor, "1 height width"]  # m in {0, 1}, of all objects
    caption: str
    object_count: int  # how many objects the denoiser gets
    subject: Float[Tensor, "photos 3 size size"]  # o in [-1, 1]: `references` photos, embedded together, of each object
    view: Float[Tensor, "3 size size"] | None  # o', a cut-out: the reference of the identity loss; None without it
    sizes: Float[Tensor, "4"]  # height and width of the photo; and what the target leaves out of it: top and left
    frame: Float[Tensor, "4"] | None  # x0, y0, x1, y1 in pixels of the target: the square that frames it like `view`
    boxes: Float[Tensor, "_ 4"] | None = None  # of the objects (`collage.Boxes`); None without a collage
    latents: Entry | None = None  # replaces `target` if latents are cached
    tower_features: tuple[Tensor | None, ...] = ()  # of each photo; None for one that is not cached

    @property
    def present(self) -> bool:
        """Whether the denoiser gets an object."""
        return self.object_count > 0


@dataclass(frozen=True)
class FeatureCaches:
    """Cached features of frozen modules (`feature_cache`); None for those that every step computes."""

    latents: FeatureStore | None = None  # by `image_key`
    text: FeatureStore | None = None  # by `text_key`
    tower: FeatureStore | None = None  # by `subject_key`


NO_CACHES = FeatureCaches()
BatchAt = Callable[[int], Batch]
Tokenize = Callable[[Sequence[str]], Int[Tensor, "batch length"]]


@dataclass(frozen=True)
class ExampleSource:
    """What the examples of a training are made from."""

    rows: Rows
    params: TrainParams
    tokenize: Tokenize
    inputs: EncoderInputs
    size: int  # pixels of the side of a subject
    caches: FeatureCaches = NO_CACHES

    @classmethod
    def of(cls, model: SubjectModel, rows: Rows, p: TrainParams) -> "ExampleSource":
        """For a model, without caches."""
        encoder = model.object_encoder
        return cls(rows, p, model.family.token_ids, EncoderInputs.of(encoder.config), encoder.image_size)


def batch_at(step: int, source: ExampleSource, share: slice = slice(None)) -> Batch:
    """The batch of one step; `share` is the part of the batch that this process computes."""
    p = source.params
    positions = range(step * p.batch_size, (step + 1) * p.batch_size)[share]
    return collate([make_example(source, row_at(source.rows, n, p), n) for n in positions], source)


def image_sides(rows: Rows) -> list[int]:
    """All widths and heights of targets, in pixels."""
    return sorted({side for b in rows.buckets for side in (b.width, b.height)})


def square_size(rows: Rows) -> int:
    """Side in pixels of the largest square target; without square targets, the shortest side of any."""
    squares = [b.width for b in rows.buckets if b.width == b.height]
    return max(squares) if squares else image_sides(rows)[0]


def make_example(source: ExampleSource, number: int, position: int) -> Example:
    """Row `number` as the example at `position`, with drops and swaps (docs/explanation/method.md section 4)."""
    p, size, caches = source.params, source.size, source.caches
    row, rng = source.rows.read(number, ROW), np.random.default_rng(seed_for(p.seed, "example", position))
    cross, drop_object, drop_text = rng.random(3)
    present = bool(not row["regularization"] and drop_object >= p.object_drop)
    beside, no_view = companion_of(source, number, position) if present else None, p.identity_weight == 0
    objects = [row] if beside is None else [row, beside.row] if beside.is_right else [beside.row, row]
    caption = caption_for(row, present, p) if beside is None else beside.caption
    example = Example(
        row_id=row["row_id"], target=None if caches.latents else decode_image(row["image"]),
        object_count=len(objects) if present else 0,
        mask=torch.zeros(1, row["height"], row["width"]),
        sizes=torch.tensor([float(row[name]) for name in ("photo_height", "photo_width", "crop_top", "crop_left")]),
        latents=cached_entry(caches.latents, image_key(row["image"])) if caches.latents else None,
        caption=source.inputs.empty_prompt_for(len(objects) if present else 0) if drop_text < p.text_drop else caption,
        subject=torch.zeros(p.references, 3, size, size),
        view=None if no_view else torch.zeros(3, size, size), frame=None if no_view else torch.zeros(4),
        boxes=torch.zeros(1, 4) if source.inputs.collage else None,
    )  # fmt: skip
    return add_objects(example, source, row, objects, bool(cross < p.cross_reference), rng) if present else example


@dataclass(frozen=True)
class Companion:
    """Another object in the image of a row."""

    row: Row
    caption: str  # with `<object>` for both
    is_right: bool  # whether its `<object>` is the second


def companion_of(source: ExampleSource, number: int, position: int) -> Companion | None:
    """The object that the example shows beside the row's own; None for none."""
    p, rows = source.params, source.rows
    others = rows.companions.get(number, []) if p.two_objects > 0 else []
    rng = np.random.default_rng(seed_for(p.seed, "two objects", position))
    if not others or rng.random() >= p.two_objects:
        return None
    return companion(source, number, others[int(rng.integers(len(others)))])


def companion(source: ExampleSource, number: int, other_number: int) -> Companion | None:
    """One row's object as the companion of another's; None if one caption cannot name both, or the images differ."""
    row, other = source.rows.read(number, ROW), source.rows.read(other_number, ROW)
    if (row["image"], row["caption"]) != (other["image"], other["caption"]):
        return None
    both = replace_both(row["caption"] or "", row["object_caption"] or "", other["object_caption"] or "")
    return None if both is None else Companion(other, *both)


def caption_for(row: Row, present: bool, p: TrainParams) -> str:
    """The caption of a row, with or without (`present`) the object embedding."""
    plain, object_caption = row["caption"] or "", row["object_caption"] or ""
    if not p.attributes and not row["regularization"]:
        plain, object_caption = drop_attributes(plain, object_caption)
    # Without the object embedding the placeholder has no meaning.
    if not present or p.captions == "class_noun":
        return plain
    return CLASS_TOKEN if p.captions == "class_token" else object_caption


def add_objects(
    example: Example, source: ExampleSource, row: Row, objects: Sequence[Row], cross: bool, rng: np.random.Generator
) -> Example:
    """The example with the subjects of all objects, their mask, and the view and the frame of the row's own object.

    With `cross` the subjects come from other views of the identities.
    """
    p = source.params
    untyped: Any = rng
    name = untyped.choice(row["references"]) if row["references"] else None  # drawn whether or not a loss reads it
    photos = [photo for r in objects for photo in subject_photos(source, r, cross, rng)]
    example = replace(
        example, subject=torch.stack([pixels for pixels, _ in photos]),
        tower_features=tuple(features for _, features in photos),
    )  # fmt: skip
    if p.collage is not None:
        example = replace(example, boxes=training_boxes([open_mask(r) for r in objects], p.collage, rng))
    if p.mask_weight == p.localization_weight == p.identity_weight == 0:
        return example
    example = replace(example, mask=torch.as_tensor(np.any([open_mask(r) for r in objects], 0))[None].float())
    if p.identity_weight == 0:
        return example
    view = open_rgba((other_view(source, str(name)) if name else row)["subject"])
    frame = torch.as_tensor(object_frame(open_mask(row), np.asarray(view)[..., 3] >= 128))
    return replace(example, view=subject_pixels(view, source.size), frame=frame)


def training_boxes(
    masks: Sequence[NDArray[np.bool_]], p: CollageParams, rng: np.random.Generator
) -> Float[Tensor, "objects 4"]:
    """The boxes of objects as shares of their image, none exact; all empty in a share `p.drop` of the rows."""
    drop, errors = rng.random(), rng.uniform(-p.jitter, p.jitter, (len(masks), 3))
    boxes = np.zeros((len(masks), 4))
    for box, mask, (across, down, growth) in zip(boxes, masks, errors, strict=True):
        if drop < p.drop or not mask.any():
            continue
        x0, y0, x1, y1 = mask_box(mask)
        side = max(x1 - x0, y1 - y0)
        centre = (x0 + x1) / 2 + across * side, (y0 + y1) / 2 + down * side
        half = (x1 - x0) / 2 * (1 + growth), (y1 - y0) / 2 * (1 + growth)
        ends = np.array([centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]])
        box[:] = ends / np.tile(mask.shape[::-1], 2)
    return torch.as_tensor(boxes, dtype=torch.float32)


def subject_photos(
    source: ExampleSource, row: Row, cross: bool, rng: np.random.Generator
) -> list[tuple[Tensor, Tensor | None]]:
    """The pixels of the photos of one object that the encoder sees together, with their tower features if cached."""
    tower, (views, augmented) = source.caches.tower, reference_photos(source, row, cross, rng)
    pixels = [subject_pixels(photo, source.size) for photo in (*views, *augmented)]
    cached = [cached_entry(tower, subject_key(s))["features"] for s in pixels[: len(views)]] if tower else []
    return list(zip(pixels, [*cached, *(None for _ in pixels[len(cached) :])], strict=True))


def reference_photos(
    source: ExampleSource, row: Row, cross: bool, rng: np.random.Generator
) -> tuple[list[Image.Image], list[Image.Image]]:
    """The photos that the encoder sees together, each of another view, and augmented copies for missing ones.

    With `cross` the row's own view is left out, else it comes first.
    """
    p, background = source.params, source.inputs.background
    first = list[Row]() if cross else [row]
    count = min(p.references - len(first), len(row["references"]))
    drawn = rng.choice(row["references"], count, replace=False)
    others = [other_view(source, str(name)) for name in drawn]
    views = [encoder_image(r, background) for r in (*first, *others)]
    originals = views or [encoder_image(row, background)]
    missing = range(p.references - len(views))
    return views, [augment(originals[i % len(originals)], p.augmentation, rng) for i in missing]


def other_view(source: ExampleSource, row_id: str) -> Row:
    """The columns of another row that show its object."""
    return source.rows.read(source.rows.find(row_id), VIEW[source.inputs.background])


def decode_image(image: bytes) -> Float[Tensor, "3 height width"]:
    """The pixels of an image file in [-1, 1]."""
    array = np.asarray(Image.open(BytesIO(image)).convert("RGB"), np.float32)
    return torch.as_tensor(array / 127.5 - 1).permute(2, 0, 1).contiguous()


def collate(examples: Sequence[Example], source: ExampleSource) -> Batch:
    """The examples as one batch."""
    caches, names, p = source.caches, ("mask", "sizes"), source.params
    photos = p.references * (2 if p.two_objects > 0 else 1)
    tokens = source.tokenize([e.caption for e in examples])
    targets = [e.target for e in examples if e.target is not None]
    latents = [e.latents for e in examples if e.latents is not None]
    texts = [cached_entry(caches.text, text_key(ids)) for ids in tokens] if caches.text else []
    return Batch(
        row_ids=tuple(e.row_id for e in examples),
        target=torch.stack(targets) if targets else None,
        tokens=tokens,
        object_counts=tuple(e.object_count for e in examples),
        subject=torch.stack([padded(e.subject, photos).unflatten(0, (-1, p.references)) for e in examples]),
        **{name: torch.stack([getattr(e, name) for e in examples]) for name in names},
        **{name: stack_or_none([getattr(e, name) for e in examples]) for name in ("view", "frame")},
        boxes=stack_or_none([None if e.boxes is None else padded(e.boxes, photos // p.references) for e in examples]),
        **{f"latent_{name}": torch.stack([entry[name] for entry in latents]) for name in ("mean", "std") if latents},
        **{
            f"text_{name}": torch.stack([entry[name] for entry in texts])
            for name in ("states", "pooled")
            if texts and name in texts[0]
        },
        **cached_features(examples, caches.tower, (photos // p.references, p.references)),
    )


def padded(values: Float[Tensor, "_ *shape size"], count: int) -> Float[Tensor, "{count} *shape size"]:
    """The values, followed by zeros."""
    return torch.cat([values, values.new_zeros(count - len(values), *values.shape[1:])])


def stack_or_none(values: Sequence[Tensor | None]) -> Tensor | None:
    """The values of the examples side by side; None if they have none."""
    some = [value for value in values if value is not None]
    return torch.stack(some) if some else None


def cached_features(
    examples: Sequence[Example], tower: FeatureStore | None, shape: tuple[int, int]
) -> dict[str, Tensor]:
    """The fields `tower_features` and `cached` of a batch, if tower features are cached.

    `shape` is how many objects an example can have, and how many photos each.
    """
    if tower is None or (entry := first_valid_entry(tower)) is None:
        return {}
    blank = torch.zeros_like(entry["features"])
    # An example without an object has none.
    rows = [[*e.tower_features, *(None for _ in range(prod(shape) - len(e.tower_features)))] for e in examples]
    features = torch.stack([torch.stack([blank if f is None else f for f in row]) for row in rows])
    cached = torch.tensor([[f is not None for f in row] for row in rows])
    return {"tower_features": features.unflatten(1, shape), "cached": cached.unflatten(1, shape)}


def image_key(image: bytes) -> str:
    """The cache key of a target's latents, from its image file."""
    return key_of(image)


def text_key(ids: Int[Tensor, " length"]) -> str:
    """The cache key of prompt embeddings, from the token ids."""
    return key_of(ids.numpy().tobytes())


def subject_key(subject: Float[Tensor, "3 size size"]) -> str:
    """The cache key of tower features, from the pixels of a subject."""
    return key_of(subject.contiguous().numpy().tobytes())


def cached_entry(store: FeatureStore, key: str) -> Entry:
    """A cached entry.

    Raises:
        TamingError: it was damaged or removed after training began.
    """
    entry = find(store, key)
    if entry is None:
        raise TamingError(f"A cached entry in {store.folder} was damaged or removed, or the rows were changed, during "
                          "training. Run the same command again to resume.")  # fmt: skip
    return entry
