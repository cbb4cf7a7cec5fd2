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
from taming_core.images.requests import Order, slug
from taming_core.language.placeholder import OBJECT, told
from taming_core.params.sections import EvaluateParams, Sampling
from taming_core.photos.masks import mask_box, window
from taming_core.seeds import seed_for
from taming_core.tables.row_images import Background, mask_of, seen
from taming_core.tables.rows import Rows, load_rows
from taming_core.tables.schema import SPLITS, Row

OURS, NO_OBJECT, ANOTHER, REAL = "ours", "no_object", "another_object", "real_photos"
# Params that change scores, not images.
UNDRAWN = frozenset({"scene_choices", "style_choices", "judge", "strict_judge", "text_judge"})


@dataclass(frozen=True)
class Thing:
    """One identity as it is evaluated."""

    identity: str
    subject: Image.Image  # RGBA, cut out of its photo
    shown: Image.Image  # RGBA, what the encoder sees: the subject, or the same in its photo
    photos: tuple[Image.Image, ...]  # RGB, square: its other photos
    class_name: str | None


@dataclass(frozen=True)
class Want:
    """One image that the evaluation draws."""

    condition: str  # ours, no_object or another_object
    thing: int  # whose image it is meant to be
    kind: str  # scene or style
    asked: str  # the scene, or the style
    number: int  # among the images of one prompt
    order: Order  # `objects` is whose tokens are used

    def file(self, things: Sequence[Thing]) -> str:
        """A name that tells what is on it."""
        words = slug(f"{things[self.thing].identity}-{self.asked}")
        return f"{self.condition}-{self.thing:03d}-{words}-{self.number}.png"


def things(folder: Path, p: EvaluateParams, background: Background) -> list[Thing]:
    """The identities that are judged: those with other photos first, for the ceiling; else drawn by the seed.

    Raises:
        TamingError: there are fewer than two, so that nothing could be mistaken for anything.
    """
    rows = load_rows(folder, p.split)
    of = views(rows)
    if len(of) < 2:
        raise TamingError(
            f"The split {p.split} of {folder} has {len(of)} identities, and judging takes two or more. "
            f"Raise materialize.{p.split}, or add photos of more things."
        )
    drawn = sorted(of, key=lambda i: (len(of[i]) < 2, seed_for(p.seed, f"identity {i}", 0)))[: p.objects]
    return [thing(rows, identity, of[identity], background) for identity in drawn]


def views(rows: Rows) -> dict[str, list[int]]:
    """The row numbers of each identity, in order of row_id: hashes of the photos, so that nobody chose the first."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    columns = (rows.column(name) for name in ("general", "identity", "row_id"))
    for i, (general, identity, row_id) in enumerate(zip(*columns, strict=True)):
        if not general:
            found[identity or row_id].append((row_id, i))
    return {identity: [i for _, i in sorted(places)] for identity, places in sorted(found.items())}


def thing(rows: Rows, identity: str, places: Sequence[int], background: Background) -> Thing:
    """The identity's first view as its subject, and the photos of the others."""
    subject, *others = (rows[i] for i in places)
    photos = {o["photo_id"]: squared(o) for o in others if o["photo_id"] != subject["photo_id"]}
    return Thing(
        identity, _decoded(subject["subject"], "RGBA"), seen(subject, background),
        tuple(photos.values()), subject["class"],
    )  # fmt: skip


def subjects(folder: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Split, identity and subject (RGBA) of every identity in the rows, whatever its split."""
    for split in SPLITS:
        rows = load_rows(folder, split)
        for identity, places in views(rows).items():
            yield split, identity, _decoded(rows[places[0]]["subject"], "RGBA")


def plan(things: Sequence[Thing], p: EvaluateParams, captions: str) -> list[Want]:
    """Every image that is wanted of the things; controls have the seeds of the images they stand beside.

    Args:
        things: what is judged.
        p: scenes, styles and how many images of each.
        captions: those that the encoder was trained with; after "plain" ones prompts name the thing's class.

    Raises:
        TamingError: a class is wanted, and a thing has none.
    """
    count, everything = len(things), []
    for i, each in enumerate(things):
        everything += [_in_words(want, captions, each.class_name) for want in _of_thing(i, p)]
    scenes = [w for w in everything if w.kind == "scene" and w.thing < p.control_objects]
    donors = [_shown(w, ANOTHER, ((w.thing + 1) % count,)) for w in scenes] if count > 1 else []
    return [*everything, *donors, *(_shown(w, NO_OBJECT, ()) for w in scenes)]


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


def _of_thing(i: int, p: EvaluateParams) -> list[Want]:
    asked = [("scene", s, scene_prompt(s)) for s in p.scenes] + [("style", s, style_prompt(s)) for s in p.styles]
    each = [(*a, n) for a in asked for n in range(p.images_per_prompt)]
    first = i * len(each)
    return [
        Want(OURS, i, kind, words, n, Order(prompt, (i,), seed_for(p.seed, "image", first + k)))
        for k, (kind, words, prompt, n) in enumerate(each)
    ]


def _in_words(want: Want, captions: str, noun: str | None) -> Want:
    """The same image, asked for as the encoder's captions have it."""
    return replace(want, order=replace(want.order, prompt=told(want.order.prompt, captions, noun)))


def _shown(want: Want, condition: str, shown: tuple[int, ...]) -> Want:
    """The same image with another thing's tokens, or none."""
    return replace(want, condition=condition, order=replace(want.order, objects=shown))


def encode(pipeline: TamingPipeline, subjects: Sequence[Image.Image]) -> tuple[Tensor, float]:
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
    pipeline: TamingPipeline, wants: Sequence[Want], paths: Sequence[Path], embeds: Tensor, sampling: Sampling
) -> Iterator[int]:
    """Draw the wanted images to their paths, and yield how many are there."""
    yield from draw.draw_missing(pipeline, [w.order for w in wants], paths, embeds, sampling)


def squared(row: Row) -> Image.Image:
    """The row's image, RGB, cut to the largest square that holds its object: judges see squares."""
    image, mask = _decoded(row["image"], "RGB"), mask_of(row)
    return image.crop(window(*image.size, (1, 1), mask_box(mask) if mask.any() else None))


def _decoded(data: bytes, mode: str) -> Image.Image:
    return Image.open(BytesIO(data)).convert(mode)
