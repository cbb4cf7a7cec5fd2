"""How sharp an object is at the size at which models see it."""

import numpy as np
from numpy.typing import NDArray

from taming_core.photos.masks import cutout

SIDE, FILL = 256, 0.92  # pixels of the cut-out, and share of it that the object fills
RIM = 3  # pixels at the outline that do not count: the edge of the cut-out is sharp in any photo


def sharpness(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """The variance of the Laplacian of the grey values of an object, cut out at SIDE pixels.

    A small object is enlarged, and counts as blurred: it has no detail to learn from. Pech-Pacheco et al., "Diatom
    autofocusing in brightfield microscopy", 2000.

    Args:
        image: the photo (H, W, 3), RGB.
        mask: of the object (H, W).

    Raises:
        ValueError: no pixel of the mask is true.
    """
    import cv2  # slow to import

    subject = cutout(image, mask, SIDE, FILL)
    grey = cv2.cvtColor(np.ascontiguousarray(subject[..., :3]), cv2.COLOR_RGB2GRAY)
    opaque = (subject[..., 3] == 255).astype(np.uint8)
    inside = cv2.erode(opaque, np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)) > 0
    values = cv2.Laplacian(grey, cv2.CV_64F)[inside if inside.any() else opaque > 0]
    return float(values.var()) if values.size else 0.0
