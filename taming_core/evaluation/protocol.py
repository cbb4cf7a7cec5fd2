"""What an evaluation draws: held-out things, every condition, and images that survive a crash."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from PIL import Image
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.images import draw
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest, slug
from taming_core.language.placeholder import OBJECT, prompt_for
from taming_core.params.sections import EvaluateParams, Sampling
from taming_core.photos.masks import mask_box, window
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, encoder_image, open_mask
from taming_core.tables.rows import Rows, load_rows
from taming_core.tables.schema import SPLITS, Row

OURS, NO_OBJECT, ANOTHER, REAL = "ours", "no_object", "another_object", "real_photos"
# Params that change scores, not images.
SCORING_ONLY = frozenset({"scene_choices", "style_choices", "judge", "strict_judge", "text_judge"})


@dataclass(frozen=True)
class EvalSubject:
    """One identity as it is evaluated."""

    identity: str
    subject: Image.Image  # RGBA, cut out of its photo
    encoder_image: Image.Image  # RGBA, what the encoder sees: the subject, or the same in its photo
    photos: tuple[Image.Image, ...]  # RGB, square: its other photos
    class_name: str | None


@dataclass(frozen=True)
class EvalImage:
    """One image that the evaluation draws."""

    condition: str  # ours, no_object or another_object
    subject: int  # whose image it is meant to be
    kind: str  # scene or style
    asked: str  # the scene, or the style
    number: int  # among the images of one prompt
    request: ImageRequest  # `objects` is whose tokens are used

    def file(self, subjects: Sequence[EvalSubject]) -> str:
        """A name that tells what is on it."""
        words = slug(f"{subjects[self.subject].identity}-{self.asked}")
        return f"{self.condition}-{self.subject:03d}-{words}-{self.number}.png"


def eval_subjects(folder: Path, p: EvaluateParams, background: Background) -> list[EvalSubject]:
    """The identities that are judged: those with other photos first, for the ceiling; else drawn by the seed.

    Raises:
        TamingError: there are fewer than two, so that nothing could be mistaken for anything.
    """
    rows = load_rows(folder, p.split)
    rows_by_identity = rows_of_identities(rows)
    if len(rows_by_identity) < 2:
        raise TamingError(
            f"The split {p.split} of {folder} has {len(rows_by_identity)} identities, and judging takes two or more. "
            f"Raise materialize.{p.split}, or add photos of more things."
        )
    drawn = sorted(
        rows_by_identity, key=lambda i: (len(rows_by_identity[i]) < 2, seed_for(p.seed, f"identity {i}", 0))
    )[: p.objects]
    return [eval_subject(rows, identity, rows_by_identity[identity], background) for identity in drawn]


def rows_of_identities(rows: Rows) -> dict[str, list[int]]:
    """The row numbers of each identity, in order of row_id: hashes of the photos, so that nobody chose the first."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    columns = (rows.column(name) for name in ("regularization", "identity", "row_id"))
    for i, (regularization, identity, row_id) in enumerate(zip(*columns, strict=True)):
        if not regularization:
            found[identity or row_id].append((row_id, i))
    return {identity: [i for _, i in sorted(places)] for identity, places in sorted(found.items())}


def eval_subject(rows: Rows, identity: str, places: Sequence[int], background: Background) -> EvalSubject:
    """The identity's first view as its subject, and the photos of the others."""
    subject, *others = (rows[i] for i in places)
    photos = {o["photo_id"]: square_photo(o) for o in others if o["photo_id"] != subject["photo_id"]}
    return EvalSubject(
        identity, _decoded(subject["subject"], "RGBA"), encoder_image(subject, background),
        tuple(photos.values()), subject["class"],
    )  # fmt: skip


def all_subjects(folder: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Split, identity and subject (RGBA) of every identity in the rows, whatever its split."""
    for split in SPLITS:
        rows = load_rows(folder, split)
        for identity, places in rows_of_identities(rows).items():
            yield split, identity, _decoded(rows[places[0]]["subject"], "RGBA")


def plan_images(subjects: Sequence[EvalSubject], p: EvaluateParams, captions: str) -> list[EvalImage]:
    """Every image that is wanted of the things; controls have the seeds of the images they stand beside.

    Args:
        things: what is judged.
        p: scenes, styles and how many images of each.
        captions: those that the encoder was trained with; after "class_noun" prompts name the thing's class.

    Raises:
        TamingError: a class is wanted, and a thing has none.
    """
    count, planned = len(subjects), []
    for i, each in enumerate(subjects):
        planned += [_with_encoder_captions(want, captions, each.class_name) for want in _subject_images(i, p)]
    scenes = [w for w in planned if w.kind == "scene" and w.subject < p.control_objects]
    donors = [_with_objects(w, ANOTHER, ((w.subject + 1) % count,)) for w in scenes] if count > 1 else []
    return [*planned, *donors, *(_with_objects(w, NO_OBJECT, ()) for w in scenes)]


def scene_prompt(scene: str) -> str:
    """What is asked of the model, and what the text judge chooses among.

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


def _subject_images(i: int, p: EvaluateParams) -> list[EvalImage]:
    asked = [("scene", s, scene_prompt(s)) for s in p.scenes] + [("style", s, style_prompt(s)) for s in p.styles]
    each = [(*a, n) for a in asked for n in range(p.images_per_prompt)]
    first = i * len(each)
    return [
        EvalImage(OURS, i, kind, words, n, ImageRequest(prompt, (i,), seed_for(p.seed, "image", first + k)))
        for k, (kind, words, prompt, n) in enumerate(each)
    ]


def _with_encoder_captions(image: EvalImage, captions: str, noun: str | None) -> EvalImage:
    """The same image, asked for as the encoder's captions have it."""
    return replace(image, request=replace(image.request, prompt=prompt_for(image.request.prompt, captions, noun)))


def _with_objects(image: EvalImage, condition: str, shown: tuple[int, ...]) -> EvalImage:
    """The same image with another thing's tokens, or none."""
    return replace(image, condition=condition, request=replace(image.request, objects=shown))


def encode_subjects(pipeline: TamingPipeline, subjects: Sequence[Image.Image]) -> tuple[Tensor, float]:
    """The object embeddings (objects, K, D), one pass of the encoder for each, and the median of its seconds."""
    embeds, seconds = [], []
    for subject in subjects:
        start = perf_counter()
        embeds.append(pipeline.encode_objects([subject]).cpu())  # waits for the device, so that the seconds are true
        seconds.append(perf_counter() - start)
    return torch.cat(embeds), median(seconds)


def cost(embeds: Tensor, encoding: float, drawing: float, images: int) -> dict[str, float]:
    """What an object and an image cost; `drawing` is the seconds of `images` images, of which there may be none."""
    found = {"seconds_per_object": round(encoding, 4), "bytes_per_object": embeds[0].nbytes}
    return {**found, "seconds_per_image": round(drawing / images, 3)} if images else found


def draw_missing(
    pipeline: TamingPipeline, images: Sequence[EvalImage], paths: Sequence[Path], embeds: Tensor, sampling: Sampling
) -> Iterator[int]:
    """Draw the wanted images to their paths, and yield how many are there."""
    yield from draw.draw_missing(pipeline, [w.request for w in images], paths, embeds, sampling)


def square_photo(row: Row) -> Image.Image:
    """The row's image, RGB, cut to the largest square that holds its object: judges see squares."""
    image, mask = _decoded(row["image"], "RGB"), open_mask(row)
    return image.crop(window(*image.size, (1, 1), mask_box(mask) if mask.any() else None))


def _decoded(data: bytes, mode: str) -> Image.Image:
    return Image.open(BytesIO(data)).convert(mode)
