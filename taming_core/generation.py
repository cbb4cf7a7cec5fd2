"""The images of `taming generate`: requests, file names, and the record to reproduce each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from PIL import Image

from taming_core.errors import TamingError
from taming_core.figures.image_grid import Cell, grid
from taming_core.files import read_json, slug, write_json
from taming_core.images.requests import ImageRequest
from taming_core.language.placeholder import OBJECT, prompt_for
from taming_core.params.sections import Sampling
from taming_core.photos.folder import list_photos
from taming_core.seeds import seed_for

MAX_PROMPT_IN_NAME = 60  # maximum characters of a prompt in a file name


@dataclass(frozen=True)
class RequestedImage:
    """One requested image and its file."""

    photos: tuple[str, ...]  # of its objects: a photo each, or a folder of photos
    name: str  # of its objects
    prompt: str
    seed: int  # --seed plus the image's number
    request: ImageRequest

    @property
    def file(self) -> str:
        """The file name: object, prompt and seed."""
        return f"{self.name}-{slug(self.prompt)[:MAX_PROMPT_IN_NAME].strip('-')}-{self.seed}.png"


def photos_of(path: Path) -> list[Path]:
    """The photos of an object: the file itself, or all photos of a folder, without captions, masks and notes.

    Raises:
        TamingError: the folder holds none.
    """
    return list_photos(path) if path.is_dir() else [path]


def object_names(paths: Sequence[Path]) -> list[str]:
    """Names of the objects: their file names, or folder and file names if those are not unique.

    >>> object_names([Path("raw/robot/0.jpg"), Path("raw/canoe/0.jpg")])
    ['robot-0', 'canoe-0']
    """
    stems = [slug(p.stem) for p in paths]
    return stems if len(set(stems)) == len(stems) else [slug(f"{p.resolve().parent.name} {p.stem}") for p in paths]


def requested_images(
    objects: Sequence[Path], prompts: Sequence[str], seed: int, images: int, together: bool = False
) -> list[RequestedImage]:
    """Each object, or all of them `together`, with each prompt, `images` times; a seed gives the same image anywhere.

    Raises:
        TamingError: a prompt lacks a placeholder of an object, or two images would have the same file name.
    """
    names = object_names(objects)
    groups = [tuple(range(len(objects)))] if together else [(i,) for i in range(len(objects))]
    require_placeholders(prompts, len(groups[0]))
    requested = [
        RequestedImage(
            tuple(str(objects[i]) for i in group), "-and-".join(names[i] for i in group), prompt, s,
            ImageRequest(prompt, group, seed_for(s, "image", 0)),
        )
        for group in groups
        for prompt in prompts
        for s in range(seed, seed + images)
    ]  # fmt: skip
    files = [image.file for image in requested]
    if duplicates := {n for n in files if files.count(n) > 1}:
        raise TamingError(
            f"Two images would have the file name {min(duplicates)}. Rename a photo, or shorten a prompt."
        )
    return requested


def require_placeholders(prompts: Sequence[str], objects: int) -> None:
    """Raises TamingError if a prompt lacks `<object>`, or does not have it once for each of several objects."""
    for prompt in prompts:
        if OBJECT not in prompt:
            raise TamingError(
                f"The prompt '{prompt}' does not say where the object goes. "
                f"Write {OBJECT} in it, such as 'a photo of {OBJECT} on the beach'."
            )
        if objects > 1 and prompt.count(OBJECT) != objects:
            raise TamingError(f"The prompt '{prompt}' does not say where each of the {objects} objects goes. "
                              f"Write {OBJECT} in it {objects} times, in the order of --object.")  # fmt: skip


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


def with_encoder_captions(images: Sequence[RequestedImage], captions: str) -> list[RequestedImage]:
    """The images with prompts in the scheme of the encoder's captions; with class nouns `<object>` becomes "object"."""
    prompts = {w.prompt: prompt_for(w.prompt, captions, "object") for w in images}
    return [replace(w, request=replace(w.request, prompt=prompts[w.prompt])) for w in images]


def sheet(
    subjects: Sequence[Sequence[Image.Image]], requested: Sequence[RequestedImage], images: Sequence[Image.Image]
) -> Image.Image:
    """The contact sheet: a row for each group of objects, with its subjects and then its images under their prompts."""
    side = min(max(images[0].width, 128), 256)
    rows: list[list[Cell]] = []
    for group in dict.fromkeys(w.request.objects for w in requested):
        of_group = [(w, image) for w, image in zip(requested, images, strict=True) if w.request.objects == group]
        inputs = tile_images([picture for i in group for picture in subjects[i]], side)
        rows.append([Cell(inputs, of_group[0][0].name), *(Cell(image, f"seed {w.seed}") for w, image in of_group)])
    first = requested[0].request.objects
    columns = ["the object" if len(first) == 1 else "the objects",
               *(w.prompt for w in requested if w.request.objects == first)]  # fmt: skip
    return grid("Cut out of their photos; nothing was tuned", columns, rows, side)


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


def record(
    images: Iterable[RequestedImage],
    sampling: Sampling,
    encoder: str,
    weights: str,
    versions: Mapping[str, str],
    scale: float,
    size: tuple[int, int] | None,
    precision: str,
) -> dict[str, Any]:
    """The record of each image by file name, with all that reproduces it."""
    settings = {
        "encoder": {"folder": encoder, "fingerprint": weights},
        "sampling": sampling.model_dump(),
        "object_scale": scale,
        "size": size,
        "precision": precision,
        "versions": dict(versions),
    }
    return {w.file: {"objects": list(w.photos), "prompt": w.prompt, "seed": w.seed, **settings} for w in images}


def add_record(images: Mapping[str, Any], path: Path) -> None:
    """Write generation.json; its records of other images are kept."""
    earlier: dict[str, Any] = read_json(path) if path.is_file() else {}
    write_json(path, {**earlier, **images})
