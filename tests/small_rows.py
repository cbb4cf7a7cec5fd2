"""A folder of rows made from the world's own artwork: real cut-outs on real scenes, known masks."""

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from taming_core.photos.masks import cutout
from taming_core.tables import schema
from taming_core.weights.mini import MINI

SIDE = 128


@lru_cache
def artwork(count: int) -> list[Image.Image]:
    """Cut-outs (RGBA) of things that no training has seen, one of each concept."""
    table = pq.read_table(MINI / "world" / "cutouts.parquet", columns=["concept", "split", "image"])
    held_out = [r for r in table.to_pylist() if r["split"] == "unseen-concepts"]
    first = {r["concept"]: r["image"]["bytes"] for r in reversed(held_out)}
    return [Image.open(BytesIO(data)).convert("RGBA") for _, data in sorted(first.items())[:count]]


@lru_cache
def scene(number: int) -> Image.Image:
    table = pq.read_table(MINI / "world" / "scenes.parquet", columns=["image"])
    data = table.slice(number * 41 % len(table), 1).to_pylist()[0]["image"]["bytes"]
    return Image.open(BytesIO(data)).convert("RGBA").resize((SIDE, SIDE))


def composed(thing: Image.Image, number: int, tilt: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """A photo (128, 128, 3) of a thing, and its mask."""
    small = thing.rotate(tilt, Image.Resampling.BICUBIC).resize((88, 88), Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", (SIDE, SIDE))
    layer.paste(small, (12 + 5 * (number % 4), 20 + 4 * (number % 3)))
    photo = Image.alpha_composite(scene(number), layer).convert("RGB")
    return np.asarray(photo), np.asarray(layer)[..., 3] > 127


def png(image: np.ndarray) -> dict[str, Any]:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def row(thing: Image.Image, identity: str, view: int, split: str) -> dict[str, Any]:
    image, mask = composed(thing, view, tilt=15 * view)
    known = {
        "row_id": f"{identity}-{view}",
        "photo_id": f"{identity}-{view}",
        "file_name": f"{identity}/{view}.png",
        "image": png(image),
        "width": SIDE,
        "height": SIDE,
        "mask": png(mask * np.uint8(255)),
        "subject": png(cutout(image, mask, SIDE, 0.92)),
        "caption": "a photo of a thing",
        "object_caption": "a photo of a <object>",
        "identity": identity,
        "split": split,
        "regularization": False,
        "references": [f"{identity}-{1 - view}"],
        "view_hash": "0" * 16,
    }
    return {**dict.fromkeys(schema.ROWS.names), **known}


def write_rows(folder: Path, held_out: int, seen: int = 1) -> Path:
    """Two views of each identity; the last `seen` identities are of the training split."""
    things = artwork(held_out + seen)
    for split, numbers in (("test", range(held_out)), ("train", range(held_out, held_out + seen))):
        rows = [row(things[i], f"thing-{i}", view, split) for i in numbers for view in (0, 1)]
        schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, folder / f"{split}-00000.parquet")
    return folder
