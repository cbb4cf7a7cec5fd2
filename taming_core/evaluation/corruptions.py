"""Corrupted copies of the object in a photo, composited back into it: what a score of fidelity should notice.

They are made by other code than those that mini's judges were trained against (`pipelines/mini/corruptions.py`), on
real photos instead of artwork, so that no judge is tested on the very distortions it has learnt.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taming_core.photos.masks import Box, Mask, mask_box

Pixels = NDArray[np.uint8]
REACHES = {"bent_slightly": 0.04, "bent": 0.08, "bent_strongly": 0.16}  # displacement / the object's longer side
GRID = 4  # points of a displacement on each side of the object's box
HUES = (85, 128, 171)  # rotations by about 120, 180 and 240 degrees, of 256
OPAQUE = 64  # alpha from which a pixel is of the object: a blended one has half of it
VISIBLE = 0.05  # mean absolute difference on the object, of 1, from which a copy counts as corrupted
RIM = 2  # pixels around the mask that may show the object


class MaskedPhoto(NamedTuple):
    """A photo and the mask of its object."""

    image: Pixels  # (H, W, 3), RGB
    mask: Mask  # (H, W), not empty


class Layers(NamedTuple):
    """An object and a donor of parts, aligned: RGBA, of the photo's size, transparent around the object."""

    own: Image.Image
    donor: Image.Image
    box: Box  # of the own object


Corruption = Callable[[Layers, Generator], Image.Image]  # -> a layer


def corrupted_copies(photo: MaskedPhoto, donor: MaskedPhoto, rng: Generator) -> dict[str, MaskedPhoto]:
    """The photo with each corruption of its object, by name; those that change nothing visible are left out.

    A grey object has no hue, and a ball is its own mirror image.
    """
    layers, ground = Layers(layer_of(photo), fitted(donor, photo), mask_box(photo.mask)), background_of(photo)
    copies = {name: composite(ground, corrupt(layers, rng)) for name, corrupt in CORRUPTIONS.items()}
    return {name: copy for name, copy in copies.items() if difference(photo, copy) > VISIBLE}


def transplanted(photo: MaskedPhoto, donor: MaskedPhoto) -> MaskedPhoto:
    """The photo with the donor's object in the place of its own."""
    return composite(background_of(photo), fitted(donor, photo))


def difference(one: MaskedPhoto, other: MaskedPhoto) -> float:
    """The mean absolute difference of two photos of one size in [0, 1], over the pixels of either object."""
    objects = one.mask | other.mask
    return float(np.abs(one.image[objects].astype(np.float32) - other.image[objects]).mean() / 255)


def layer_of(photo: MaskedPhoto) -> Image.Image:
    """The photo's object in its place."""
    return Image.fromarray(np.dstack([photo.image, photo.mask * np.uint8(255)]))


def background_of(photo: MaskedPhoto) -> Image.Image:
    """The photo without its object, whose place is filled from around it; RGB."""
    import cv2  # slow to import

    hole = cv2.dilate(photo.mask.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8))
    return Image.fromarray(cv2.inpaint(photo.image, hole, 3, cv2.INPAINT_TELEA))


def fitted(donor: MaskedPhoto, photo: MaskedPhoto) -> Image.Image:
    """The donor's object on the photo's: centred on its box, its longer side as long, in its own proportions."""
    x0, y0, x1, y1 = mask_box(photo.mask)
    cut = layer_of(donor).crop(mask_box(donor.mask))
    scale = max(x1 - x0, y1 - y0) / max(cut.size)
    small = cut.resize((max(round(cut.width * scale), 1), max(round(cut.height * scale), 1)), Image.Resampling.HAMMING)
    layer = Image.new("RGBA", photo.mask.shape[::-1])
    layer.paste(small, ((x0 + x1 - small.width) // 2, (y0 + y1 - small.height) // 2))
    return layer


def composite(ground: Image.Image, layer: Image.Image) -> MaskedPhoto:
    """A layer on a background of its size."""
    image = Image.alpha_composite(ground.convert("RGBA"), layer).convert("RGB")
    return MaskedPhoto(np.asarray(image), np.asarray(layer)[..., 3] >= OPAQUE)


def bent(layers: Layers, rng: Generator, reach: float) -> Image.Image:
    """Deformed by a smooth random displacement of up to `reach` of the object's longer side."""
    import cv2

    x0, y0, x1, y1 = layers.box
    pixels = reach * max(x1 - x0, y1 - y0)
    margin = int(np.ceil(pixels))
    around = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
    source = np.asarray(layers.own.crop(around).convert("RGBa"))  # premultiplied: nothing bleeds over the edge
    shift = rng.uniform(-1, 1, (GRID, GRID, 2))
    shift -= shift.mean((0, 1))  # a shift of all is no bend
    shift *= pixels / np.abs(shift).max()
    smooth = np.asarray(cv2.resize(shift, source.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    y, x = np.indices(source.shape[:2], np.float32)
    moved = np.asarray(cv2.remap(source, x + smooth[..., 0], y + smooth[..., 1], cv2.INTER_LINEAR), np.uint8)
    layer = Image.new("RGBA", layers.own.size)
    layer.paste(Image.fromarray(moved, "RGBa").convert("RGBA"), around[:2])
    return layer


def blended(layers: Layers, rng: Generator) -> Image.Image:  # noqa: ARG001  as every corruption
    """The mean of the object and the donor's."""
    own, donor = (np.asarray(layer.convert("RGBa"), np.uint16) for layer in (layers.own, layers.donor))
    return Image.fromarray(((own + donor) // 2).astype(np.uint8), "RGBa").convert("RGBA")


def part_swapped(layers: Layers, rng: Generator) -> Image.Image:
    """A third of the object's box, at one of its four sides, replaced by that part of the donor."""
    x0, y0, x1, y1 = layers.box
    across, down = (x1 - x0 + 2) // 3, (y1 - y0 + 2) // 3
    width, height = layers.own.size
    parts = (0, 0, x0 + across, height), (x1 - across, 0, width, height), (0, 0, width, y0 + down), (
        0, y1 - down, width, height,
    )  # fmt: skip
    part = parts[int(rng.integers(len(parts)))]
    layer = layers.own.copy()
    layer.paste(layers.donor.crop(part), part[:2])
    return layer


def recoloured(layers: Layers, rng: Generator) -> Image.Image:
    """Every hue rotated by the same angle."""
    hue, saturation, value = layers.own.convert("RGB").convert("HSV").split()
    angle = int(rng.choice(HUES))
    turned = Image.merge("HSV", (hue.point([(h + angle) % 256 for h in range(256)]), saturation, value)).convert("RGB")
    turned.putalpha(layers.own.getchannel("A"))
    return turned


def mirrored(layers: Layers, rng: Generator) -> Image.Image:  # noqa: ARG001  as every corruption
    """Left and right exchanged, within the object's box."""
    x0, y0 = layers.box[:2]
    layer = Image.new("RGBA", layers.own.size)
    layer.paste(ImageOps.mirror(layers.own.crop(layers.box)), (x0, y0))
    return layer


CORRUPTIONS: Mapping[str, Corruption] = {
    **{name: partial(bent, reach=reach) for name, reach in REACHES.items()},
    "blended": blended, "part_swapped": part_swapped, "recoloured": recoloured, "mirrored": mirrored,
}  # fmt: skip
