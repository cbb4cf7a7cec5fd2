"""Measure two objects in one image: is each at the place of its own `<object>`, and do both change places with it?

For every pair of held-out objects, "a photo of a <object> and a <object>" is drawn in both orders from the same noise.
As in the captions of the world, the first object belongs on the left.

Example:  python -m pipelines.mini.two_objects --encoder data/encoder --out out/two-objects
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from pipelines.mini.metrics import with_interval, write_metrics
from pipelines.mini.options import DeviceName, WorldFolder
from pipelines.mini.stage_params import OUT, WORLD, require_outside_package
from pipelines.mini.world_data import load_data
from taming_core.evaluation.judges import Judge, composite_on_grey, load_judge
from taming_core.figures.image_grid import Cell, grid, save
from taming_core.images.draw import draw
from taming_core.images.families import load_pipeline
from taming_core.images.requests import ImageRequest
from taming_core.objects.subjects import Finder, load_finder
from taming_core.params.load import load_params
from taming_core.params.sections import MaterializeParams
from taming_core.photos.masks import cutout
from taming_core.progress import track
from taming_core.seeds import seed_for
from taming_core.world.folder import identities
from taming_core.world.photos import photos_of
from taming_core.world.plan import Chances, generator, plan_of

SCENES = ("on the beach", "in the snow", "on a wooden table", "in a room", "on a grass field", "in the desert")
PROMPT = "a photo of a <object> and a <object> {scene}"


@dataclass(frozen=True)
class Side:
    """The object on one side of an image."""

    found: bool  # whether the detector finds one
    right: bool  # whether it is more similar to the object that belongs there than to the other one


def subjects_of(world: Path, count: int, size: int, p: MaterializeParams) -> list[Image.Image]:
    """Cut-outs of `count` objects that no model of `mini` has seen, each from a photo of its own."""
    data, settings = load_data(world, "cpu"), load_params().world
    known = identities(data.world, count, "unseen-concepts", settings)
    chances = Chances(style=0, two_objects=0, smallest=0.6, largest=0.86)
    plans = [plan_of(data.world, [o.cutout], generator(settings.seed, f"two objects/{o.name}", 0), chances, [o.colour])
             for o in known]  # fmt: skip
    photos = photos_of(data.world, data.pictures, plans, size)
    cuts = (cutout(image, mask[0], p.subject_size, p.subject_fill)
            for image, mask in zip(photos.image.numpy(), (m.numpy() for m in photos.masks), strict=True))  # fmt: skip
    return [Image.fromarray(cut) for cut in cuts]


def requests_of(pairs: int, seed: int) -> Iterator[ImageRequest]:
    """Each pair of neighbours in both orders, with the same prompt and noise."""
    for pair in range(pairs):
        prompt, first = PROMPT.format(scene=SCENES[pair % len(SCENES)]), 2 * pair
        for objects in ((first, first + 1), (first + 1, first)):
            yield ImageRequest(prompt, objects, seed_for(seed, "two objects", pair))


def sides_of(image: Image.Image, objects: Sequence[int], features: NDArray[np.float32], judge: Judge, find: Finder,
             p: MaterializeParams) -> list[Side]:  # fmt: skip
    """Left and right side of an image: the most confident object there, compared with both subjects."""
    pixels = np.asarray(image.convert("RGB"))
    masks, middle = find(pixels), pixels.shape[1] / 2
    sides: list[Side] = []
    for own, other, is_left in ((objects[0], objects[1], True), (objects[1], objects[0], False)):
        mask = next((m for m in masks if (np.nonzero(m)[1].mean() < middle) == is_left), None)
        if mask is None:
            sides.append(Side(found=False, right=False))
            continue
        found = judge([composite_on_grey(Image.fromarray(cutout(pixels, mask, p.subject_size, p.subject_fill)))])[0]
        sides.append(Side(found=True, right=bool(features[own] @ found > features[other] @ found)))
    return sides


def metrics_of(sides: Sequence[Sequence[Side]], images: Sequence[Image.Image]) -> dict[str, float]:
    """Shares of sides, of images and of pairs, with intervals over pairs; and how far swapping changes the pixels.

    `own_place` is one half if the order makes no difference.
    """
    of_side = [str(image // 2) for image in range(len(sides)) for _ in range(2)]
    flat = [side for image in sides for side in image]
    found = [i for i, side in enumerate(flat) if side.found]
    swapped = [
        all(side.right for image in pair for side in image) for pair in zip(sides[::2], sides[1::2], strict=True)
    ]
    first, second = (np.stack([np.asarray(image, np.float32) for image in images[i::2]]) for i in (0, 1))
    return {
        **with_interval("found", [side.found for side in flat], of_side),
        **with_interval("own_place", [flat[i].right for i in found], [of_side[i] for i in found]),
        **with_interval("all_four_right", swapped, [str(n) for n in range(len(swapped))]),
        "pixel_change": float(np.abs(first - second).mean() / 255),
    }


def sheet(subjects: Sequence[Image.Image], images: Sequence[Image.Image], sides: Sequence[Sequence[Side]],
          requests: Sequence[ImageRequest]) -> Image.Image:  # fmt: skip
    """One row per pair: both subjects, and both orders with the number of sides that are right."""
    rows = [
        [
            *(Cell(composite_on_grey(subjects[i])) for i in requests[n].objects),
            *(Cell(images[k], f"{sum(s.right for s in sides[k])} of 2 right, {requests[k].prompt.split('> ')[-1]}",
                   all(s.right for s in sides[k])) for k in (n, n + 1)),
        ]
        for n in range(0, len(images), 2)
    ]  # fmt: skip
    return grid("Two objects in one image, in both orders", ["first", "second", "in this order", "swapped"], rows, 128)


def main(
    out: Annotated[
        Path, typer.Option(help="Folder for metrics.json and sheet.png.", callback=require_outside_package)
    ] = OUT / "two-objects",
    encoder: Annotated[str, typer.Option(help="mini, or an encoder folder.")] = "mini",
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    world: WorldFolder = WORLD,
    device: DeviceName = "auto",
) -> None:
    """Draw every pair in both orders, and count whose object is on which side."""
    params = load_params()
    p, pipeline = params.materialize, load_pipeline(encoder, load_data(world, device).device)
    subjects, requests = subjects_of(world, 2 * pairs, 2 * params.world.size, p), list(requests_of(pairs, seed))
    judge, find = load_judge("mini", "cpu"), load_finder(params.detect, "cpu")
    features = judge([composite_on_grey(s) for s in subjects])
    drawn = draw(pipeline, requests, pipeline.encode_objects(subjects), params.generate.sampling)
    images = list(track(drawn, "draw", len(requests)))
    sides = [sides_of(i, r.objects, features, judge, find, p) for i, r in zip(images, requests, strict=True)]
    write_metrics(out, {"pairs": pairs, **metrics_of(sides, images)})
    save(sheet(subjects, images, sides, requests), out / "sheet.png")
    print((out / "metrics.json").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    typer.run(main)
