"""Images of one's own objects for one's own prompts: which, in what files, and how to draw one again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from PIL import Image

from taming_core.errors import TamingError
from taming_core.figures.image_grid import Cell, grid
from taming_core.images.requests import ImageRequest, slug
from taming_core.language.placeholder import OBJECT, prompt_for
from taming_core.params.sections import Sampling
from taming_core.photos.files import list_photos
from taming_core.seeds import seed_for

MAX_PROMPT_IN_NAME = 60  # letters of a prompt in a file name, at most


@dataclass(frozen=True)
class RequestedImage:
    """One image and its file."""

    photos: tuple[str, ...]  # of its objects: a photo each, or a folder of photos
    name: str  # of the objects
    prompt: str
    seed: int  # as the user counts: --seed, and one more for each further image
    request: ImageRequest

    @property
    def file(self) -> str:
        """Object, prompt and seed, in words that any file system takes."""
        return f"{self.name}-{slug(self.prompt)[:MAX_PROMPT_IN_NAME].strip('-')}-{self.seed}.png"


def photos_of(path: Path) -> list[Path]:
    """The photos of an object: itself, or all of a folder.

    Raises:
        TamingError: the folder holds none.
    """
    return list_photos(path) if path.is_dir() else [path]


def object_names(paths: Sequence[Path]) -> list[str]:
    """What the objects are called: as their files, and if that is not enough as their folders and files.

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
        TamingError: a prompt does not say where each object goes, or two images would have one file.
    """
    names = object_names(objects)
    groups = [tuple(range(len(objects)))] if together else [(i,) for i in range(len(objects))]
    require_places(prompts, len(groups[0]))
    found = [
        RequestedImage(
            tuple(str(objects[i]) for i in group), "-and-".join(names[i] for i in group), prompt, s,
            ImageRequest(prompt, group, seed_for(s, "image", 0)),
        )
        for group in groups
        for prompt in prompts
        for s in range(seed, seed + images)
    ]  # fmt: skip
    files = [w.file for w in found]
    if twice := {n for n in files if files.count(n) > 1}:
        raise TamingError(f"Two images would be called {min(twice)}. Rename a photo, or shorten a prompt.")
    return found


def require_places(prompts: Sequence[str], objects: int) -> None:
    """Raises TamingError where a prompt does not hold `<object>`, once for each of several objects."""
    for prompt in prompts:
        if OBJECT not in prompt:
            raise TamingError(
                f"The prompt '{prompt}' does not say where the object goes. "
                f"Write {OBJECT} in it, such as 'a photo of {OBJECT} on the beach'."
            )
        if objects > 1 and prompt.count(OBJECT) != objects:
            raise TamingError(f"The prompt '{prompt}' does not say where each of the {objects} objects goes. "
                              f"Write {OBJECT} in it {objects} times, in the order of --object.")  # fmt: skip


def overridden(sampling: Sampling, **values: object) -> Sampling:
    """The sampling of the params, with what the command line said instead; None says nothing."""
    said = {name: value for name, value in values.items() if value is not None}
    return Sampling.model_validate({**sampling.model_dump(), **said})


def requested_size(width: int | None, height: int | None) -> tuple[int, int] | None:
    """The size that the command line asks for; None for the model's own.

    Raises:
        TamingError: one side without the other.
    """
    if width is not None and height is not None:
        return width, height
    if width is None and height is None:
        return None
    raise TamingError("--width and --height go together. Give both, or none for the model's own size.")


def with_encoder_captions(found: Sequence[RequestedImage], captions: str) -> list[RequestedImage]:
    """As the encoder's captions have it: one that was trained with plain ones knows `<object>` as "object" only."""
    said = {w.prompt: prompt_for(w.prompt, captions, "object") for w in found}
    return [replace(w, request=replace(w.request, prompt=said[w.prompt])) for w in found]


def sheet(
    subjects: Sequence[Sequence[Image.Image]], found: Sequence[RequestedImage], images: Sequence[Image.Image]
) -> Image.Image:
    """The subjects of each image beside it, under its prompt."""
    side = min(max(images[0].width, 128), 256)
    rows = []
    for group in dict.fromkeys(w.request.objects for w in found):
        own = [(w, image) for w, image in zip(found, images, strict=True) if w.request.objects == group]
        seen = tile_images([picture for i in group for picture in subjects[i]], side)
        rows.append([Cell(seen, own[0][0].name), *(Cell(image, f"seed {w.seed}") for w, image in own)])
    first = found[0].request.objects
    columns = ["the object" if len(first) == 1 else "the objects",
               *(w.prompt for w in found if w.request.objects == first)]  # fmt: skip
    return grid("Cut out of their photos; nothing was tuned", columns, rows, side)


def tile_images(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """One picture as it is, or several in a square of equal tiles."""
    if len(pictures) == 1:
        return pictures[0]
    across = ceil(sqrt(len(pictures)))
    each = side // across
    board = Image.new("RGBA", (side, side))
    for i, picture in enumerate(pictures):
        board.paste(picture.convert("RGBA").resize((each, each)), (i % across * each, i // across * each))
    return board


def record(
    found: Iterable[RequestedImage],
    sampling: Sampling,
    encoder: str,
    weights: str,
    versions: Mapping[str, str],
    scale: float,
    size: tuple[int, int] | None,
    precision: str,
) -> dict[str, Any]:
    """By file, all that it takes to draw the image again."""
    made = {
        "encoder": {"folder": encoder, "fingerprint": weights},
        "sampling": sampling.model_dump(),
        "object_scale": scale,
        "size": size,
        "precision": precision,
        "versions": dict(versions),
    }
    return {w.file: {"objects": list(w.photos), "prompt": w.prompt, "seed": w.seed, **made} for w in found}


def add_record(images: Mapping[str, Any], path: Path) -> None:
    """Write generation.json; what it says of other images stays."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**earlier, **images}, indent=2) + "\n", encoding="utf-8")
