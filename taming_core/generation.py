"""The images of `taming generate`: requests, file names, and the record to reproduce each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Any, TypeVar, cast

from PIL import Image

from taming_core.errors import TamingError
from taming_core.figures.image_grid import Cell, grid, stack
from taming_core.files import MAX_NAME, safe_name
from taming_core.fingerprints import digest
from taming_core.images.prompts import place_objects, shorten
from taming_core.images.requests import Box, DrawSettings, ImageRequest
from taming_core.language.placeholder import prompt_for
from taming_core.params.sections import Sampling
from taming_core.photos.folder import list_photos
from taming_core.seeds import seed_for
from taming_core.storage.filesystem import is_folder
from taming_core.storage.paths import AnyPath

T = TypeVar("T")
MAX_OBJECTS = 32  # bytes of a file name, of which the prompt has the rest
COLUMNS = 8  # images side by side on the sheet
SIDE = 256  # pixels of an image on the sheet at most


@dataclass(frozen=True)
class RequestedImage:
    """One requested image."""

    photos: tuple[str, ...]  # of its objects: a photo each, or a folder of photos
    name: str  # of its objects
    prompt: str  # as it was written
    seed: int  # --seed plus the image's number
    request: ImageRequest

    @property
    def readable_name(self) -> str:
        """Object, prompt and seed, as the start of a file name."""
        objects, end = safe_name(self.name, MAX_OBJECTS), f"-{self.seed}"
        return f"{objects}-{safe_name(self.prompt, MAX_NAME - len(objects) - 1 - len(end))}{end}"


def photos_of(path: AnyPath) -> list[AnyPath]:
    """The photos of an object: the file itself, or all photos of a folder, without captions, masks and notes.

    Raises:
        TamingError: the folder holds none.
    """
    return list_photos(path) if is_folder(path) else [path]


def object_names(paths: Sequence[AnyPath]) -> list[str]:
    """Names of the objects: those of their files or folders, with the folder above if those are not unique.

    >>> from pathlib import Path
    >>> object_names([Path("raw/robot/0.jpg"), Path("raw/canoe/0.jpg")])
    ['robot 0', 'canoe 0']
    """
    named = [path.resolve() if path.name in ("", "..") else path for path in paths]
    names = [path.name if is_folder(path) else path.stem for path in named]
    unique = len({safe_name(name) for name in names}) == len(names)
    return names if unique else [f"{p.resolve().parent.name} {name}" for p, name in zip(named, names, strict=True)]


def requested_images(
    objects: Sequence[AnyPath], prompts: Sequence[str], seed: int, images: int, together: bool = False
) -> list[RequestedImage]:
    """Each object, or all of them `together`, with each prompt, `images` times; a seed gives the same image anywhere.

    Raises:
        TamingError: a prompt does not say where an object goes.
    """
    names = object_names(objects)
    groups = [tuple(range(len(objects)))] if together else [(i,) for i in range(len(objects))]
    placed = [(prompt, *place_objects(prompt, [str(objects[i]) for i in groups[0]])) for prompt in unique(prompts)]
    return [
        RequestedImage(
            tuple(str(objects[i]) for i in group), " and ".join(names[i] for i in group), written, s,
            ImageRequest(prompt, tuple(group[i] for i in places), seed_for(s, "image", 0)),
        )
        for group in groups
        for written, prompt, places in placed
        for s in range(seed, seed + images)
    ]  # fmt: skip


def require_prompts(prompts: Sequence[str]) -> Sequence[str]:
    """The prompts; raises TamingError if there is none."""
    if not prompts:
        raise TamingError(
            "There is no prompt. Give --prompt 'a photo of <object> on the beach', or a file by --prompts."
        )
    return prompts


def unique(items: Iterable[T]) -> list[T]:
    """The items without repetitions, in order."""
    return list(dict.fromkeys(items))


def require_equal_photos(photos: Sequence[Sequence[AnyPath]]) -> None:
    """Raises TamingError if objects of one image have different numbers of photos, and so of tokens."""
    if len(counts := unique(map(len, photos))) > 1:
        raise TamingError(f"The objects have {' and '.join(map(str, counts))} photos, and --together takes equally "
                          "many of each. Name as many photos of each object.")  # fmt: skip


def override_sampling(sampling: Sampling, **values: object) -> Sampling:
    """The sampling of the params with the values of the command line; None keeps the value of the params."""
    given = {name: value for name, value in values.items() if value is not None}
    return Sampling.model_validate({**sampling.model_dump(), **given})


def requested_size(width: int | None, height: int | None) -> tuple[int, int] | None:
    """Width and height from the command line; None for the model's own size.

    Raises:
        TamingError: one side without the other.
    """
    if width is not None and height is not None:
        return width, height
    if width is None and height is None:
        return None
    raise TamingError("--width and --height go together. Give both, or none for the model's own size.")


def requested_boxes(texts: Sequence[str]) -> tuple[Box, ...] | None:
    """The boxes of the command line, "x0,y0,x1,y1" each; None without any.

    Raises:
        TamingError: one is not of four numbers.

    >>> requested_boxes(["0.1,0.2,0.5,0.9"])
    ((0.1, 0.2, 0.5, 0.9),)
    """
    try:
        boxes = [tuple(float(number) for number in text.split(",")) for text in texts]
    except ValueError:
        boxes = [()]
    if any(len(box) != 4 for box in boxes):
        raise TamingError("--box takes four numbers from 0 to 1, the upper left corner and the lower right one, such "
                          "as 0.1,0.2,0.5,0.9. Correct it.")  # fmt: skip
    return cast(tuple[Box, ...], tuple(boxes)) or None


def with_encoder_captions(images: Sequence[RequestedImage], captions: str) -> list[RequestedImage]:
    """The images with prompts in the scheme of the encoder's captions; with class nouns `<object>` becomes "object"."""
    prompts = {w.request.prompt: prompt_for(w.request.prompt, captions, "object") for w in images}
    return [replace(w, request=replace(w.request, prompt=prompts[w.request.prompt])) for w in images]


def sheet(
    subjects: Sequence[Sequence[Image.Image]], requested: Sequence[RequestedImage], images: Sequence[Image.Image]
) -> Image.Image:
    """The contact sheet: a row for each group of objects, with its subjects and then its images under their prompts.

    More than `COLUMNS` images of a group go on below, under their own prompts.
    """
    side = min(max(*images[0].size, 128), SIDE)
    groups = dict[tuple[int, ...], list[tuple[RequestedImage, Image.Image]]]()
    for w, image in zip(requested, images, strict=True):
        groups.setdefault(tuple(sorted(w.request.objects)), []).append((w, image))
    inputs = [Cell(tile_images([cut for i in group for cut in subjects[i]], side), shorten(of_group[0][0].name, 60))
              for group, of_group in groups.items()]  # fmt: skip
    first = next(iter(groups.values()))
    parts: list[Image.Image] = []
    for start in range(0, len(first), COLUMNS):
        shown = [of_group[start : start + COLUMNS] for of_group in groups.values()]
        rows = [[cell, *(Cell(image, f"seed {w.seed}") for w, image in row)]
                for cell, row in zip(inputs, shown, strict=True)]  # fmt: skip
        columns = ["the object" if len(first[0][0].photos) == 1 else "the objects",
                   *(shorten(w.prompt) for w, _ in shown[0])]  # fmt: skip
        parts.append(grid("" if parts else "Cut out of their photos; nothing was tuned", columns, rows, side))
    return stack(parts)


def thumbnail(image: Image.Image) -> Image.Image:
    """The image as large as the sheet shows it: a thousand large ones would fill the memory."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def tile_images(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """One picture unchanged, or several in a square of equal tiles, `side` pixels wide."""
    if len(pictures) == 1:
        return pictures[0]
    columns = ceil(sqrt(len(pictures)))
    tile = side // columns
    board = Image.new("RGBA", (side, side))
    for i, picture in enumerate(pictures):
        board.paste(picture.convert("RGBA").resize((tile, tile)), (i % columns * tile, i // columns * tile))
    return board


def records(
    images: Iterable[RequestedImage],
    subjects: Sequence[Sequence[Image.Image]],
    settings: DrawSettings,
    encoder: Mapping[str, str],
    versions: Mapping[str, str],
    precision: str,
) -> list[dict[str, Any]]:
    """The record of each image: all that reproduces it.

    Args:
        images: the images.
        subjects: the cut-outs of each object, which `ImageRequest.objects` indexes.
        settings: of the drawing.
        encoder: its folder and its fingerprint.
        versions: of packages.
        precision: of the drawing.
    """
    of_all = {
        "encoder": dict(encoder),
        "sampling": settings.sampling.model_dump(),
        "negative_prompt": settings.negative_prompt,
        "object_scale": settings.object_scale,
        "size": settings.size and list(settings.size),
        "boxes": settings.boxes and [list(box) for box in settings.boxes],
        "precision": precision,
        "versions": dict(versions),
    }
    digests = [digest(subject.tobytes() for subject in of_object) for of_object in subjects]
    return [
        {"objects": list(w.photos), "subjects": [digests[i] for i in w.request.objects], "prompt": w.prompt,
         "seed": w.seed, **of_all}
        for w in images
    ]  # fmt: skip
