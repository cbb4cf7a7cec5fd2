"""The images of an evaluation: held-out subjects, prompts and control conditions."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation.conditions import ANOTHER, NO_OBJECT, OURS
from taming_core.files import MAX_NAME, distinct_names, safe_name
from taming_core.images.requests import ImageRequest
from taming_core.language.placeholder import OBJECT, prompt_for
from taming_core.params.sections import EvaluateParams
from taming_core.photos.masks import mask_box, window
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, encoder_image, open_mask
from taming_core.tables.rows import Rows, load_rows
from taming_core.tables.schema import SPLITS, Row

REFERENCES = 3  # other photos of an identity that images are compared with
MAX_WORDS = MAX_NAME - 40  # bytes of identity and scene or style in a file name
# Params that change scores, not images.
SCORING_ONLY = frozenset({"scene_choices", "style_choices", "judge", "strict_judge", "text_judge"})


@dataclass(frozen=True)
class EvalSubject:
    """One identity as it is evaluated."""

    identity: str
    subject: Image.Image  # RGBA, cut out of its photo
    encoder_image: Image.Image  # RGBA, the encoder's input: the subject, or the subject in its photo
    photos: tuple[Image.Image, ...]  # RGB, square: its other photos
    class_name: str | None
    others: tuple[Image.Image, ...] = ()  # RGBA, the subject cut out of each of its other photos
    training_photos: tuple[Image.Image, ...] = ()  # RGB, square, of baselines: the encoder's photo, and with more of
    # them some that then are none of the other photos

    def reference(self, photo: int | None = None) -> Image.Image:
        """The cut-out (RGBA) of its first other photo that is not number `photo`; without one, the seen picture."""
        return next((other for i, other in enumerate(self.others) if i != photo), self.subject)


class IdentityViews(NamedTuple):
    """The cut-outs (RGBA) of an identity."""

    identity: str
    seen: Image.Image  # that of the photo which the encoder sees
    others: tuple[Image.Image, ...]  # at most REFERENCES of its other photos


@dataclass(frozen=True)
class EvalImage:
    """One image of the evaluation."""

    condition: str  # see conditions.py
    subject: int  # index of the subject that it is scored against
    kind: str  # scene or style
    asked: str  # the scene, or the style
    number: int  # among the images of one prompt
    request: ImageRequest  # `objects` are the subjects that are shown, by their tokens unless a baseline draws it
    steps: int | None = None  # of the baseline's training


def eval_subjects(folder: Path, p: EvaluateParams, background: Background) -> list[EvalSubject]:
    """The evaluated identities: those with other photos first, with which images are compared; else by the seed.

    Raises:
        TamingError: `evaluate.baseline_photos` leaves no photo of an identity to compare images with.
    """
    rows = load_rows(folder, p.split)
    rows_by_identity, references = rows_of_identities(rows), rows.column("references")

    def order(identity: str) -> tuple[bool, int]:
        enough = len(references[rows_by_identity[identity][0]]) >= p.baseline_photos
        return not enough, seed_for(p.seed, f"identity {identity}", 0)

    drawn = sorted(rows_by_identity, key=order)[: p.objects]
    return [eval_subject(rows, i, rows_by_identity[i], background, p.baseline_photos) for i in drawn]


def rows_of_identities(rows: Rows) -> dict[str, list[int]]:
    """The row numbers of each identity, in order of row_id: hashes of the photos, so that the first is arbitrary."""
    entries: dict[str, list[tuple[str, int]]] = defaultdict(list)
    columns = (rows.column(name) for name in ("regularization", "identity", "row_id"))
    for i, (regularization, identity, row_id) in enumerate(zip(*columns, strict=True)):
        if not regularization:
            entries[identity or row_id].append((row_id, i))
    return {identity: [i for _, i in sorted(pairs)] for identity, pairs in sorted(entries.items())}


def eval_subject(
    rows: Rows, identity: str, numbers: Sequence[int], background: Background, baseline_photos: int = 1
) -> EvalSubject:
    """The identity with the subject of its first row, and its other photos.

    Raises:
        TamingError: baselines take several photos, and leave none.
    """
    subject = rows[numbers[0]]
    photos = [subject, *other_photos(rows, subject)]
    if 1 < baseline_photos >= len(photos):
        raise TamingError(f"{identity} has {len(photos)} photos, and evaluate.baseline_photos is {baseline_photos}, "
                          "which leaves none to compare images with. Set it lower, or evaluate.objects.")  # fmt: skip
    training, others = photos[:baseline_photos], photos[baseline_photos:]
    return EvalSubject(
        identity, cutout_of(subject), encoder_image(subject, background), tuple(map(square_photo, others)),
        subject["class"], tuple(map(cutout_of, others)), tuple(map(square_photo, training)),
    )  # fmt: skip


def other_photos(rows: Rows, seen: Row) -> Iterator[Row]:
    """A row of each other photo of an identity, in order of row_id; near-duplicates of the seen one are left out."""
    photo_ids = {seen["photo_id"]}
    for row in (rows[rows.find(row_id)] for row_id in sorted(seen["references"])):
        if row["photo_id"] not in photo_ids:
            photo_ids.add(row["photo_id"])
            yield row


def all_subjects(folder: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Split, identity and subject (RGBA) of every identity in the rows, whatever its split."""
    for split in SPLITS:
        rows = load_rows(folder, split)
        for identity, numbers in rows_of_identities(rows).items():
            yield split, identity, cutout_of(rows[numbers[0]])


def identity_views(folder: Path, split: str, baseline_photos: int = 1) -> Iterator[IdentityViews]:
    """The cut-outs of every identity of a split, without the photos that baselines train on beside the seen one."""
    rows = load_rows(folder, split)
    for identity, numbers in rows_of_identities(rows).items():
        seen = rows[numbers[0]]
        others = islice(other_photos(rows, seen), baseline_photos - 1, baseline_photos - 1 + REFERENCES)
        yield IdentityViews(identity, cutout_of(seen), tuple(map(cutout_of, others)))


def plan_images(subjects: Sequence[EvalSubject], p: EvaluateParams, captions: str) -> list[EvalImage]:
    """The images of the encoder, and of controls with the prompt and the seed of the one that they are compared with.

    Args:
        subjects: the evaluated subjects.
        p: scenes, styles and how many images of each.
        captions: the scheme of the encoder's training captions; with "class_noun" prompts name the object's class.

    Raises:
        TamingError: prompts need a class, and a subject has none.
    """
    count = len(subjects)
    planned = [
        _with_encoder_captions(image, captions, subjects[image.subject].class_name) for image in object_images(count, p)
    ]
    scenes = [w for w in planned if w.kind == "scene" and w.subject < p.control_objects]
    donors = [_with_objects(w, ANOTHER, ((w.subject + 1) % count,)) for w in scenes] if count > 1 else []
    return [*planned, *donors, *(_with_objects(w, NO_OBJECT, ()) for w in scenes)]


def file_names(images: Sequence[EvalImage], subjects: Sequence[EvalSubject]) -> list[str]:
    """A file name for each image: condition, subject, scene or style, and number; a hash where two would be equal."""
    words = [safe_name(f"{subjects[i.subject].identity}-{i.asked}", MAX_WORDS) for i in images]
    names = [f"{i.condition}-{i.subject:03d}-{w}-{i.number}" for i, w in zip(images, words, strict=True)]
    return [f"{name}.png" for name in distinct_names(names, list(map(repr, images)))]


def scene_prompt(scene: str) -> str:
    """The prompt of a scene, for the model and for the text judge.

    >>> scene_prompt("on the beach")
    'a photo of a <object> on the beach'
    """
    return f"a photo of a {OBJECT} {scene}"


def style_prompt(style: str) -> str:
    """As `scene_prompt`, for a style.

    >>> style_prompt("a pencil sketch of")
    'a pencil sketch of a <object>'
    """
    return f"{style} a {OBJECT}"


def object_images(count: int, p: EvaluateParams) -> list[EvalImage]:
    """The images of the first `count` subjects, their prompts with `<object>`."""
    return [image for i in range(count) for image in _subject_images(i, p)]


def _subject_images(i: int, p: EvaluateParams) -> list[EvalImage]:
    prompts = [("scene", s, scene_prompt(s)) for s in p.scenes] + [("style", s, style_prompt(s)) for s in p.styles]
    numbered = [(*prompt, n) for prompt in prompts for n in range(p.images_per_prompt)]
    first = i * len(numbered)
    return [
        EvalImage(OURS, i, kind, words, n, ImageRequest(prompt, (i,), seed_for(p.seed, "image", first + k)))
        for k, (kind, words, prompt, n) in enumerate(numbered)
    ]


def _with_encoder_captions(image: EvalImage, captions: str, noun: str | None) -> EvalImage:
    """The same image, its prompt in the scheme of the encoder's training captions."""
    return replace(image, request=replace(image.request, prompt=prompt_for(image.request.prompt, captions, noun)))


def _with_objects(image: EvalImage, condition: str, objects: tuple[int, ...]) -> EvalImage:
    """The same image with the tokens of other objects, or of none."""
    return replace(image, condition=condition, request=replace(image.request, objects=objects))


def square_photo(row: Row) -> Image.Image:
    """The row's image, RGB, cropped to the largest square that contains its object: judges take squares."""
    image, mask = _decode(row["image"], "RGB"), open_mask(row)
    return image.crop(window(*image.size, (1, 1), mask_box(mask) if mask.any() else None))


def cutout_of(row: Row) -> Image.Image:
    """The row's subject, RGBA."""
    return _decode(row["subject"], "RGBA")


def _decode(data: bytes, mode: str) -> Image.Image:
    return Image.open(BytesIO(data)).convert(mode)
