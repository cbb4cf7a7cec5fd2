"""An object at the resolution of its file, where the image of its whole photo was scaled down too far."""

import numpy as np
from numpy.typing import NDArray

from taming_core.photos.decode import Photo, read_photo
from taming_core.photos.masks import Box, fit_mask, mask_box, scale_box
from taming_core.storage.paths import AnyPath

Pixels = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # image (H, W, 3) and mask (H, W)


def closeup(path: AnyPath, photo: Photo, mask: NDArray[np.bool_], size: int, fill: float) -> Pixels:
    """A photo and the mask of an object in it, with pixels enough to frame the object as `masks.cutout` does.

    They are those of the whole photo if its image has them, and else of the part of it that is framed, read again.

    Args:
        path: the photo's file.
        photo: what was read from it, scaled down or not.
        mask: (H, W) of the object at any size.
        size: pixels of the frame's side.
        fill: share of it that the object fills.

    Raises:
        PhotoError: the file cannot be read again.
        ValueError: no pixel of the mask is true.
    """
    height, width = photo.image.shape[:2]
    fitted = fit_mask(mask, width, height)
    if (width, height) == (photo.width, photo.height) or longer_side(mask_box(fitted)) >= size * fill:
        return photo.image, fitted
    small = mask.shape[1], mask.shape[0]
    x0, y0, x1, y1 = frame(mask_box(mask), fill, *small)
    box = scale_box((x0, y0, x1, y1), small, (photo.width, photo.height))
    near = read_photo(path, side_of=lambda _width, _height: 2 * size, box=box).image  # resized once more, to `size`
    return near, fit_mask(mask[y0:y1, x0:x1], near.shape[1], near.shape[0])


def longer_side(box: Box) -> int:
    """Pixels of the longer side of a box."""
    return max(box[2] - box[0], box[3] - box[1])


def frame(box: Box, fill: float, width: int, height: int) -> Box:
    """The square around a box whose side the box fills by a share, cut off at the edges of an image.

    >>> frame((40, 40, 80, 60), 0.5, 100, 100)
    (20, 10, 100, 90)
    """
    side = max(longer_side(box), round(longer_side(box) / fill))
    left, top = box[0] - (side - box[2] + box[0]) // 2, box[1] - (side - box[3] + box[1]) // 2
    return max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
