"""The images of one row: target image, mask, and the subject with its background removed (numpy and PIL only).

Source: the training triplets of Jia et al., "Taming Encoder for Zero Fine-tuning Image Customization", 2023.
"""

from collections.abc import Sequence
from io import BytesIO
from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taming_core.params.sections import MaterializeParams
from taming_core.photos.decode import WORKING_SIDE
from taming_core.photos.masks import Size, cutout, window
from taming_core.photos.view_hash import difference_hash

Pixels = NDArray[np.uint8]


def bucket(width: int, height: int, p: MaterializeParams) -> Size:
    """Width and height of the target image for a photo of this size: the bucket nearest in aspect ratio."""
    shapes = [(p.size, p.size)] if p.buckets is None else [(w, h) for w, h in p.buckets]
    return min(shapes, key=lambda shape: abs(log(width / height) - log(shape[0] / shape[1])))


def image_side(width: int, height: int, p: MaterializeParams) -> int:
    """Pixels of the longer side of a photo's image from which its target is resized: twice what the target needs.

    A photo that models see as it is stays as it is here too.
    """
    shape = bucket(width, height, p)
    left, top, right, bottom = window(width, height, shape)
    scale = max(shape[0] / (right - left), shape[1] / (bottom - top))
    return max(WORKING_SIDE, ceil(2 * scale * max(width, height)))


def target(
    image: Pixels, p: MaterializeParams, box: Sequence[int] | None = None, size: Size | None = None
) -> dict[str, Any]:
    """The columns of a row that describe its image, from the image (H, W, 3) of a photo.

    `size` is width and height of the photo, whose pixels the box is in; None where the image was not scaled down.
    """
    size = size or (image.shape[1], image.shape[0])
    small = _crop(Image.fromarray(image), size, p, box, Image.Resampling.LANCZOS)
    # No chroma subsampling: at a few hundred pixels it is visible around every edge.
    jpeg = _encode(small, "JPEG", quality=p.jpeg_quality, subsampling=0)
    columns = {"width": small.width, "height": small.height}
    view_hash = f"{difference_hash(np.asarray(small)):016x}"
    return {"image": jpeg, **columns, **sizes(*size, p, box), "view_hash": view_hash}


def shared_box(
    width: int, height: int, own: Sequence[int], boxes: Sequence[Sequence[int]], p: MaterializeParams
) -> list[int]:
    """The box that the crop for an object contains: around all objects of the photo if it can, else its own.

    So the rows of one photo have the same image wherever that is possible, and an example can show two of them.
    """
    x0, y0, x1, y1 = zip(own, *boxes, strict=True)
    union = [min(x0), min(y0), max(x1), max(y1)]
    left, top, right, bottom = window(width, height, bucket(width, height, p))
    fits = union[2] - union[0] <= right - left and union[3] - union[1] <= bottom - top
    return union if fits else list(own)


def sizes(width: int, height: int, p: MaterializeParams, box: Sequence[int] | None = None) -> dict[str, int]:
    """The photo's size, and what the crop leaves out left of and above the image, in pixels of the image.

    SDXL is told them (Podell et al., "SDXL", 2024, section 2.2).
    """
    shape = bucket(width, height, p)
    left, top, right, bottom = window(width, height, shape, box)
    crop = {"crop_left": left * shape[0] / (right - left), "crop_top": top * shape[1] / (bottom - top)}
    return {"photo_width": width, "photo_height": height, **{name: round(value) for name, value in crop.items()}}


def _crop(
    image: Image.Image, size: Size, p: MaterializeParams, box: Sequence[int] | None, filter: Image.Resampling
) -> Image.Image:
    """The image of a photo of some size, or its mask, cropped and resized to its bucket."""
    shape = bucket(*size, p)
    across, down = image.width / size[0], image.height / size[1]
    left, top, right, bottom = window(*size, shape, box)
    crop = image.crop((round(left * across), round(top * down), round(right * across), round(bottom * down)))
    return crop.resize(shape, filter)


def subject(
    image: Pixels,
    mask: NDArray[np.bool_],
    p: MaterializeParams,
    box: Sequence[int],
    size: Size | None = None,
    near: tuple[Pixels, NDArray[np.bool_]] | None = None,
) -> dict[str, Any]:
    """The columns `mask` and `subject` of a row.

    Args:
        image: (H, W, 3) of a photo.
        mask: (H, W) of an object in it.
        p: the params.
        box: around the object, in pixels of the photo.
        size: width and height of the photo; None where the image was not scaled down.
        near: image and mask to cut the subject out of, as `closeup` makes them; None for those of the whole photo.

    Raises:
        ValueError: no pixel of the mask is true.
    """
    size = size or (image.shape[1], image.shape[0])
    small = np.asarray(_crop(Image.fromarray(mask).convert("L"), size, p, box, Image.Resampling.BOX)) >= 128
    cut = cutout(*(near or (image, mask)), p.subject_size, p.subject_fill)
    return {
        "mask": _encode(Image.fromarray(small).convert("L"), "PNG"),
        "subject": _encode(Image.fromarray(cut), "PNG"),
    }


def _encode(image: Image.Image, kind: str, **options: int) -> dict[str, Any]:
    """An encoded image as `datasets` stores it."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}
