"""What the data stages take of a CPU for a photo of 1024 pixels beside the networks, and the bytes that they write.

Example:  python -m pipelines.scale.cpu_costs --photos 16
"""

import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from PIL import Image

from pipelines.scale.processes import run
from pipelines.scale.steps import write_params
from taming_core.objects.filters import remove_islands
from taming_core.params.load import load_params
from taming_core.photos.decode import read_photo
from taming_core.photos.masks import decode_mask, encode_mask
from taming_core.photos.view_hash import difference_hash, thumbnail
from taming_core.projects import profiles
from taming_core.rows import triplets
from taming_core.tables import schema

T = TypeVar("T")
SIDE = 1024  # pixels of a photo


def main(photos: Annotated[int, typer.Option("--photos", min=1, help="Number of photos.")] = 16) -> None:
    """Print the means, in CPU seconds and in bytes per photo with one object."""
    with TemporaryDirectory() as folder, chdir(folder):
        found = list(costs(photos, Path(folder)))
    for name in found[0]:
        print(f"{name}: {mean(one[name] for one in found):.4g}")


def costs(count: int, folder: Path) -> Iterator[dict[str, float]]:
    """The costs of each photo."""
    write_params(folder / "params.yaml", {"world": {"size": SIDE}})
    run(("world", "--photos", str(count), "--out", "raw", "--truth", ".", "--params", "params.yaml"), folder)
    p = load_params(profiles.folder("sd15") / "params.yaml")
    for row in (r for rows in schema.iter_rows(folder / "objects.parquet", schema.OBJECTS, count) for r in rows):
        path = folder / "raw" / row["file_name"]
        decode, photo = cpu_seconds(lambda path=path: read_photo(path))
        hashes, _ = cpu_seconds(lambda image=photo.image: (difference_hash(image), thumbnail(image)))
        mask = decode_mask(row["mask_png"])
        clean, png = cpu_seconds(lambda mask=mask: encode_mask(remove_islands(mask, p.detect.island)))
        resize, _ = cpu_seconds(lambda image=photo.image: np.asarray(Image.fromarray(image).resize((384, 384), 3)))
        crop, columns = cpu_seconds(lambda image=photo.image, mask=mask, box=row["box_xyxy"]: (
            triplets.target(image, p.materialize, box) | triplets.subject(image, mask, p.materialize, box)
        ))  # fmt: skip
        yield {
            "decode": decode + hashes, "masks": clean, "preprocess": resize, "crop": crop,
            "photo_bytes": path.stat().st_size, "object_bytes": len(png) + 256 + 200,
            "row_bytes": sum(len(c["bytes"]) for c in columns.values() if isinstance(c, dict)),
        }  # fmt: skip


def cpu_seconds(call: Callable[[], T]) -> tuple[float, Any]:
    """CPU seconds of a call, which other load hardly changes, and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


if __name__ == "__main__":
    typer.run(main)
