"""Rows of a table of objects, and masks, for tests of what a person says of them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taming_core.photos.masks import Box, encode_mask
from taming_core.tables import schema

WIDTH, HEIGHT = 100, 80
CUP, HAND = (10, 10, 50, 50), (60, 20, 90, 60)


def box_mask(box: Box) -> NDArray[np.bool_]:
    """A mask (80, 100) that fills a box."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def photo_row(name: str = "mug/0.jpg", **values: Any) -> dict[str, Any]:
    """A photo without objects."""
    known = {"photo_id": name, "file_name": name, "photo_width": WIDTH, "photo_height": HEIGHT, "identity": "mug",
             "drop_reason": "no object"}  # fmt: skip
    return {**dict.fromkeys(schema.OBJECTS.names), **known, **values}


def object_row(number: int, box: Box, noun: str | None, **values: Any) -> dict[str, Any]:
    """A kept object of that photo: the first has its identity."""
    row = photo_row(**{key: values.pop(key) for key in ("name",) if key in values})
    object_id = f"{row['photo_id']}-{number}"
    measures = {"score": 0.5, "mask_quality": 0.9, "area_fraction": 0.2, "mask_fill": 1.0, "sharpness": 30.0}
    found = {"object_id": object_id, "class": noun, "box_xyxy": list(box), "mask_png": encode_mask(box_mask(box)),
             "mask_source": "segmenter", "identity": object_id if number else "mug", "drop_reason": None}  # fmt: skip
    return {**row, **measures, **found, **values}


def write_objects(path: Path, *photos: list[dict[str, Any]]) -> Path:
    """The table, a row group for each photo, as `taming detect` writes shards."""
    schema.write([schema.table(rows, schema.OBJECTS) for rows in photos], schema.OBJECTS, path)
    return path
