"""From the pixels of any colour mode and profile to 8-bit sRGB."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

MID_GREY = (128, 128, 128)


def to_srgb(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Pixels (H, W, 3) of any mode as 8-bit sRGB, by the colour profile if it is valid; and which (H, W) are opaque.

    The latter is None without transparency.

    Raises:
        ValueError: the pixels are floating-point numbers, or integers of more than 16 bits.
    """
    profile = image.info.get("icc_profile")
    image, opaque = _flatten_alpha(_to_8bit(image))
    return np.array(_by_profile(image, profile) or image.convert("RGB")), opaque


def _by_profile(image: Image.Image, profile: Any) -> Image.Image | None:
    """The image as sRGB by its colour profile; None without one, or if it is damaged or for another pixel mode."""
    cms: Any = ImageCms  # createProfile is partly untyped
    if not isinstance(profile, bytes):
        return None
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), cms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _to_8bit(image: Image.Image) -> Image.Image:
    """16-bit grayscale scaled by its full range (65535 becomes 255); other modes unchanged.

    Raises:
        ValueError: the pixels are of no such range.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of kind {image.mode}")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _flatten_alpha(image: Image.Image) -> tuple[Image.Image, NDArray[np.bool_] | None]:
    """Palette and alpha removed, composited over mid-grey; and the opaque pixels (H, W) if there is transparency.

    The encoder sees subjects on the same grey, and neither white nor black artwork vanishes on it.
    """
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = Image.new("RGBA", rgba.size, (*MID_GREY, 255))
        return Image.alpha_composite(grey, rgba).convert("RGB"), np.asarray(rgba)[..., 3] > 127
    return image.convert("RGB") if image.mode in ("P", "1") else image, None
