"""Images of one's own objects for one's own prompts: which, in what files, and how to draw one again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from taming_core.conditions import OBJECT
from taming_core.config import Sampling
from taming_core.errors import TamingError
from taming_core.evaluation import slug
from taming_core.grid import Cell, grid
from taming_core.images import Order
from taming_core.seeds import seed_for

NAME = 60  # letters of a prompt in a file name, at most


@dataclass(frozen=True)
class Wanted:
    """One image and its file."""

    photo: str
    name: str  # of the object
    prompt: str
    seed: int  # as the user counts: --seed, and one more for each further image
    order: Order

    @property
    def file(self) -> str:
        """Object, prompt and seed, in words that any file system takes."""
        return f"{self.name}-{slug(self.prompt)[:NAME].strip('-')}-{self.seed}.png"


def object_names(photos: Sequence[Path]) -> list[str]:
    """What the objects are called: as their files, and if that is not enough as their folders and files.

    >>> object_names([Path("raw/robot/0.jpg"), Path("raw/canoe/0.jpg")])
    ['robot-0', 'canoe-0']
    """
    stems = [slug(p.stem) for p in photos]
    return stems if len(set(stems)) == len(stems) else [slug(f"{p.resolve().parent.name} {p.stem}") for p in photos]


def wanted(photos: Sequence[Path], prompts: Sequence[str], seed: int, images: int) -> list[Wanted]:
    """Each object with each prompt, `images` times; a seed gives the same image wherever it stands.

    Raises:
        TamingError: a prompt does not say where the object goes, or two images would have one file.
    """
    for prompt in prompts:
        if OBJECT not in prompt:
            raise TamingError(
                f"The prompt '{prompt}' does not say where the object goes. "
                f"Write {OBJECT} in it, such as 'a photo of {OBJECT} on the beach'."
            )
    found = [
        Wanted(str(photo), name, prompt, s, Order(prompt, i, seed_for(s, "image", 0)))
        for i, (photo, name) in enumerate(zip(photos, object_names(photos), strict=True))
        for prompt in prompts
        for s in range(seed, seed + images)
    ]
    names = [w.file for w in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise TamingError(f"Two images would be called {min(twice)}. Rename a photo, or shorten a prompt.")
    return found


def overridden(sampling: Sampling, **values: object) -> Sampling:
    """The sampling of the params, with what the command line said instead; None says nothing."""
    said = {name: value for name, value in values.items() if value is not None}
    return Sampling.model_validate({**sampling.model_dump(), **said})


def sheet(subjects: Sequence[Image.Image], found: Sequence[Wanted], images: Sequence[Image.Image]) -> Image.Image:
    """Each subject beside its images, under their prompts."""
    numbers = dict.fromkeys(w.order.object for w in found)
    rows = []
    for number in numbers:
        own = [(w, image) for w, image in zip(found, images, strict=True) if w.order.object == number]
        rows.append([Cell(subjects[number or 0], own[0][0].name), *(Cell(image, f"seed {w.seed}") for w, image in own)])
    columns = ["the object", *(w.prompt for w in found if w.order.object == 0)]
    return grid("One photo each, cut out; nothing was tuned", columns, rows, min(max(images[0].width, 128), 256))


def record(
    found: Iterable[Wanted], sampling: Sampling, encoder: str, weights: str, versions: Mapping[str, str]
) -> dict[str, Any]:
    """By file, all that it takes to draw the image again."""
    made = {
        "encoder": {"folder": encoder, "fingerprint": weights},
        "sampling": sampling.model_dump(),
        "versions": dict(versions),
    }
    return {w.file: {"object": w.photo, "prompt": w.prompt, "seed": w.seed, **made} for w in found}


def add_record(images: Mapping[str, Any], path: Path) -> None:
    """Write generation.json; what it says of other images stays."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**earlier, **images}, indent=2) + "\n", encoding="utf-8")
