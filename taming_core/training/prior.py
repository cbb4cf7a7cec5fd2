"""Regularization rows that the starting pipeline draws, as a replacement for text-image pairs.

Prior preservation (Ruiz et al., "DreamBooth", 2023): images of the model before training preserve its prior.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from taming_core.files import remove
from taming_core.fingerprints import fingerprint as config_fingerprint
from taming_core.images.draw import draw_missing
from taming_core.images.families import TamingPipeline
from taming_core.images.requests import ImageRequest
from taming_core.model.subject_model import SubjectModel
from taming_core.params.train import TrainParams
from taming_core.photos.view_hash import difference_hash
from taming_core.seeds import seed_for
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.row_files import rows_state
from taming_core.tables.rows import Rows
from taming_core.training.batches import square_size
from taming_core.training.checkpoint import model_state
from taming_core.training.sampler import shuffled_index

GROUP = 64  # images in a row group


def fingerprint(p: TrainParams, rows: AnyPath, model: SubjectModel, pipeline: TamingPipeline) -> str:
    """A digest of everything that the images depend on; `rows` is the folder with the captions."""
    settings = f"{p.prior} {p.seed} {p.precision}"
    scheduler = json.dumps(dict(pipeline.scheduler.config), sort_keys=True, default=str)
    return config_fingerprint(p.validation.sampling, settings, rows_state(rows), model_state(model), scheduler)


def make_prior(pipeline: TamingPipeline, rows: Rows, p: TrainParams, folder: Path) -> Iterator[int]:
    """Draw `p.prior` images without an object into rows below `folder`, and yield how many are drawn.

    After a crash the same call resumes; existing rows are complete.
    """
    out, pictures = folder / "train-00000.parquet", folder / "pictures"
    if out.exists():
        remove(pictures)  # which a crash left
        return
    captions = prompts(rows, p)
    paths = [pictures / f"{n:06d}.png" for n in range(len(captions))]
    requests = [ImageRequest(prompt, (), seed_for(p.seed, "prior", n)) for n, prompt in enumerate(captions)]
    yield from draw_missing(pipeline, requests, paths, (), p.validation.sampling)
    schema.write(tables(captions, paths, square_size(rows)), schema.add_fingerprint(schema.ROWS, folder.name), out)
    remove(pictures)


def prompts(rows: Rows, p: TrainParams) -> list[str]:
    """Captions of the object rows in random order, all of them before any is repeated."""
    column = rows.column("caption")
    captions = [column[i] for i in rows.objects if column[i]]
    return [captions[shuffled_index(len(captions), p.seed, "prior order", n)] for n in range(p.prior or 0)]


def tables(captions: Sequence[str], paths: Sequence[Path], side: int) -> Iterable[pa.Table]:
    """The images as rows, one table per row group."""
    for start in range(0, len(captions), GROUP):
        numbers = range(start, min(start + GROUP, len(captions)))
        yield schema.table([row(n, captions[n], paths[n], side) for n in numbers], schema.ROWS)


def row(number: int, caption: str, path: Path, side: int) -> dict[str, Any]:
    """A regularization row, with the image resized to `side` pixels."""
    image, buffer = Image.open(path).convert("RGB"), BytesIO()
    resized = image if image.width == side else image.resize((side, side), Image.Resampling.LANCZOS)
    resized.save(buffer, "PNG")
    name = f"prior-{number:06d}"
    values: dict[str, Any] = {
        "row_id": name, "photo_id": name, "file_name": path.name, "caption": caption, "split": "train",
        "regularization": True, "references": [], "image": {"bytes": buffer.getvalue(), "path": None},
        "width": side, "height": side, "photo_width": image.width, "photo_height": image.height,
        "crop_left": 0, "crop_top": 0,
        "view_hash": f"{difference_hash(np.asarray(resized)):016x}",
    }  # fmt: skip
    return dict.fromkeys(schema.ROWS.names) | values
