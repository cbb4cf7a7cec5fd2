"""The images of an evaluation: held-out subjects, prompts and control conditions."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from io import BytesIO
from itertools import islice
from typing import NamedTuple

from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation.conditions import ANOTHER, NO_OBJECT, OURS
from taming_core.files import MAX_NAME, distinct_names, safe_name
from taming_core.images.requests import ImageRequest
from taming_core.language.class_groups import is_live
from taming_core.language.placeholder import OBJECT, prompt_for
from taming_core.params.sections import EvaluateParams
from taming_core.photos.masks import mask_box, window
from taming_core.seeds import seed_for
from taming_core.storage.paths import AnyPath
from taming_core.tables.row_images import Background, encoder_image, open_mask
from taming_core.tables.rows import Rows, load_rows
from taming_core.tables.schema import SPLITS, Row

REFERENCES = 3  # other photos of an identity that images are compared with
MAX_WORDS = MAX_NAME - 40  # bytes of identity and scene or style in a file name
# Params that change scores, not images.
SCORING_ONLY = frozenset(
    {"scene_choices", "style_choices", "judge", "strict_judge", "text_judge", "scores", "vlm", "judge_check"}
)


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
    row_ids: tuple[str, ...] = ()  # of the seen photo, and of the other ones
    square_photos: tuple[Image.Image, ...] = ()  # RGBA, the seen photo and then `photos`; opaque where the object is

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
    kind: str  # scene, style, attribute, action, or one of DreamBench++'s
    asked: str  # the scene, the style, or the name or text of a whole prompt
    number: int  # among the images of one prompt
    request: ImageRequest  # `objects` are the subjects that are shown, by their tokens unless a baseline draws it
    steps: int | None = None  # of the baseline's training
    partner: int | None = None  # index of the second subject of a prompt for two

    @property
    def subjects(self) -> tuple[int, ...]:
        """Indices of the subjects that it is scored against: one, or the two of a pair."""
        return (self.subject,) if self.partner is None else (self.subject, self.partner)


class EvalPrompt(NamedTuple):
    """A prompt of the protocol."""

    kind: str
    asked: str  # as in `EvalImage`
    text: str
    group: str | None = None  # live or object, of the subjects that it is drawn for; None for all
    subject: str | None = None  # the one identity that it is drawn for; None for all


def eval_subjects(folder: AnyPath, p: EvaluateParams, background: Background) -> list[EvalSubject]:
    """The evaluated identities: those that the params name, or `objects` of the split.

    Without names, those with other photos come first, with which images are compared; else the seed chooses.

    Raises:
        TamingError: the split has no identity of a name, or `evaluate.baseline_photos` leaves no photo of one to
            compare images with.
    """
    rows = load_rows(folder, p.split)
    rows_by_identity, references = rows_of_identities(rows), rows.column("references")

    def order(identity: str) -> tuple[bool, int]:
        enough = len(references[rows_by_identity[identity][0]]) >= p.baseline_photos
        return not enough, seed_for(p.seed, f"identity {identity}", 0)

    named = _named_identities(p.subjects, rows_by_identity, folder, p.split)
    drawn = named or sorted(rows_by_identity, key=order)[: p.objects]
    return [eval_subject(rows, i, rows_by_identity[i], background, p.baseline_photos) for i in drawn]


def _named_identities(names: Sequence[str], known: Mapping[str, object], folder: AnyPath, split: str) -> Sequence[str]:
    if missing := [name for name in names if name not in known]:
        more = f" and {len(missing) - 1} more of evaluate.subjects" if len(missing) > 1 else ""
        raise TamingError(f"The {split} split of {folder} has no identity {missing[0]}{more}. Materialize photos of "
                          "all subjects into that split, or correct evaluate.subjects.")  # fmt: skip
    return names


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
        (subject["row_id"], *(other["row_id"] for other in others)),
        tuple(map(square_photo_with_mask, (subject, *others))),
    )  # fmt: skip


def other_photos(rows: Rows, seen: Row) -> Iterator[Row]:
    """A row of each other photo of an identity, in order of row_id; near-duplicates of the seen one are left out."""
    photo_ids = {seen["photo_id"]}
    for row in (rows[rows.find(row_id)] for row_id in sorted(seen["references"])):
        if row["photo_id"] not in photo_ids:
            photo_ids.add(row["photo_id"])
            yield row


def all_subjects(folder: AnyPath) -> Iterator[tuple[str, str, Image.Image]]:
    """Split, identity and subject (RGBA) of every identity in the rows, whatever its split."""
    for split in SPLITS:
        rows = load_rows(folder, split)
        for identity, numbers in rows_of_identities(rows).items():
            yield split, identity, cutout_of(rows[numbers[0]])


def identity_views(folder: AnyPath, split: str, baseline_photos: int = 1) -> Iterator[IdentityViews]:
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
        p: the prompts and how many images of each.
        captions: the scheme of the encoder's training captions; with "class_noun" prompts name the object's class.

    Raises:
        TamingError: prompts need a class, and a subject has none.
    """
    count = len(subjects)
    planned = [
        _with_encoder_captions(image, captions, [subjects[i].class_name for i in image.subjects])
        for image in object_images(subjects, p)
    ]
    controls = [w for w in planned if w.kind != "style" and w.subject < p.control_objects]
    alone = [w for w in controls if w.partner is None]
    donors = [_with_objects(w, ANOTHER, ((w.subject + 1) % count,)) for w in alone] if count > 1 else []
    return [*planned, *donors, *(_with_objects(w, NO_OBJECT, ()) for w in controls)]


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


def object_images(subjects: Sequence[EvalSubject], p: EvaluateParams) -> list[EvalImage]:
    """The images of all subjects, their prompts with `<object>`."""
    return [image for i in range(len(subjects)) for image in _subject_images(i, subjects, p)]


def prompts_of(p: EvaluateParams) -> list[EvalPrompt]:
    """Every prompt: of the scenes, of the styles, and the whole ones."""
    return [
        *(EvalPrompt("scene", s, scene_prompt(s)) for s in p.scenes),
        *(EvalPrompt("style", s, style_prompt(s)) for s in p.styles),
        *(EvalPrompt(q.kind, q.name or q.text, q.text, q.group, q.subject) for q in p.prompts),
    ]


def _subject_images(i: int, subjects: Sequence[EvalSubject], p: EvaluateParams) -> list[EvalImage]:
    """The images of subject `i`; their seeds are the same whichever prompts are for its group."""
    numbered = [(prompt, n) for prompt in prompts_of(p) for n in range(p.images_per_prompt)]
    first = i * len(numbered)
    return [
        _subject_image(i, len(subjects), prompt, n, seed_for(p.seed, "image", first + k))
        for k, (prompt, n) in enumerate(numbered)
        if prompt.subject in (None, subjects[i].identity)
        and (prompt.group is None or prompt.group == _group_of(subjects[i]))
    ]


def _group_of(subject: EvalSubject) -> str:
    """The group of a subject, for which the prompts of the other group are not drawn."""
    if subject.class_name is None:
        raise TamingError(f"The object {subject.identity} has no class, which the groups of evaluate.prompts need. "
                          "Name it in a column class of the photos' metadata, or set all groups to null.")  # fmt: skip
    return "live" if is_live(subject.class_name) else "object"


def _subject_image(i: int, count: int, prompt: EvalPrompt, number: int, seed: int) -> EvalImage:
    """An image of subject `i`, or of it and the next one where the prompt is for two."""
    partner = (i + 1) % count if prompt.text.count(OBJECT) == 2 else None
    objects = (i,) if partner is None else (i, partner)
    request = ImageRequest(prompt.text, objects, seed)
    return EvalImage(OURS, i, prompt.kind, prompt.asked, number, request, partner=partner)


def _with_encoder_captions(image: EvalImage, captions: str, nouns: Sequence[str | None]) -> EvalImage:
    """The same image, its prompt in the scheme of the encoder's training captions."""
    prompt = reduce(lambda text, noun: prompt_for(text, captions, noun), nouns, image.request.prompt)
    return replace(image, request=replace(image.request, prompt=prompt))


def _with_objects(image: EvalImage, condition: str, objects: tuple[int, ...]) -> EvalImage:
    """The same image with the tokens of other objects, or of none."""
    return replace(image, condition=condition, request=replace(image.request, objects=objects))


def square_photo(row: Row) -> Image.Image:
    """The row's image, RGB, cropped to the largest square that contains its object: judges take squares."""
    return square_photo_with_mask(row).convert("RGB")


def square_photo_with_mask(row: Row) -> Image.Image:
    """The same with the object's mask as its alpha channel; RGBA."""
    image, mask = _decode(row["image"], "RGB"), open_mask(row)
    image.putalpha(Image.fromarray(mask).convert("L"))
    return image.crop(window(*image.size, (1, 1), mask_box(mask) if mask.any() else None))


def cutout_of(row: Row) -> Image.Image:
    """The row's subject, RGBA."""
    return _decode(row["subject"], "RGBA")


def _decode(data: bytes, mode: str) -> Image.Image:
    return Image.open(BytesIO(data)).convert(mode)
