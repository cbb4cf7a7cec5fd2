"""The images of an evaluation and the photos of its subjects as a network sees them: whole, or the object alone."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from taming_core.evaluation.gallery import chunks
from taming_core.evaluation.judges import Judge
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.statistics import Features
from taming_core.objects.subjects import Mask

GREY = 128  # as around the subjects that an encoder is shown


class Views(NamedTuple):
    """Images and photos with the masks of their objects."""

    images: Sequence[Image.Image]  # RGB, of the rows
    masks: Sequence[Sequence[Mask]]  # the detections in each
    subjects: Sequence[EvalSubject]


class ViewFeatures(NamedTuple):
    """A network's features of unit length of the same."""

    images: Features  # (N, E)
    objects: Sequence[Features]  # of each image (detections, E)
    photos: dict[str, Features]  # of each identity (1 + others, E): the seen photo first
    photo_objects: dict[str, Features]


def features(network: Judge, views: Views, images: Features | None = None) -> ViewFeatures:
    """The network's features of all views, of each once; `images` are those of the images where they are known."""
    subjects = views.subjects
    found = (object_alone(image, m) for image, masks in zip(views.images, views.masks, strict=True) for m in masks)
    photos = (photo.convert("RGB") for s in subjects for photo in s.square_photos)
    objects = (object_alone(photo, mask_of(photo)) for s in subjects for photo in s.square_photos)
    return ViewFeatures(
        in_chunks(network, views.images) if images is None else images,
        split(in_chunks(network, found), [len(masks) for masks in views.masks]),
        by_identity(in_chunks(network, photos), subjects),
        by_identity(in_chunks(network, objects), subjects),
    )


def in_chunks(network: Judge, images: Iterable[Image.Image]) -> Features:
    """Features (N, E) of images that are made when they are needed: there may be more than fit into memory."""
    found = [network(chunk) for chunk in chunks(images)]
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)


def split(features: Features, counts: Sequence[int]) -> list[Features]:
    """Consecutive features in groups of these sizes.

    >>> [len(group) for group in split(np.zeros((3, 2), np.float32), [1, 0, 2])]
    [1, 0, 2]
    """
    return np.split(features, np.cumsum(counts)[:-1])


def by_identity(features: Features, subjects: Sequence[EvalSubject]) -> dict[str, Features]:
    """Features of all photos of all subjects, in order, by identity."""
    groups = split(features, [len(s.square_photos) for s in subjects])
    return {s.identity: group for s, group in zip(subjects, groups, strict=True)}


def other_numbers(row: ImageScores, photos: int) -> list[int]:
    """The numbers, among the photos of its identity, of those that neither the encoder saw nor the image is.

    >>> other_numbers({"condition": "ours"}, 4), other_numbers({"photo": 0}, 4), other_numbers({"photo": 0}, 2)
    ([1, 2, 3], [2, 3], [])
    """
    return [number for number in range(1, photos) if number - 1 != row.get("photo")]


def best_object(row: ImageScores, i: int, f: ViewFeatures) -> int | None:
    """The detection of image `i` that is most similar to the object in the photos; None without a detection."""
    photos = f.photo_objects[row["identity"]]
    cosines = f.objects[i] @ photos[other_numbers(row, len(photos)) or [0]].T if len(f.objects[i]) else None
    return None if cosines is None else int(cosines.mean(1).argmax())


def mask_of(photo: Image.Image) -> Mask:
    """The mask (H, W) of a photo (RGBA) that is opaque where its object is."""
    return np.asarray(photo.getchannel("A")) > 127


def object_alone(image: Image.Image, mask: Mask) -> Image.Image:
    """The image, RGB, with everything but the object of `mask` (H, W) in mid-grey."""
    return _grey_where(image, ~mask)


def background_alone(image: Image.Image, mask: Mask | None) -> Image.Image:
    """The image, RGB, with the object of `mask` (H, W) in mid-grey; the whole image without one."""
    return image if mask is None else _grey_where(image, mask)


def _grey_where(image: Image.Image, where: Mask) -> Image.Image:
    pixels = np.array(image.convert("RGB"))
    pixels[where] = GREY
    return Image.fromarray(pixels)
