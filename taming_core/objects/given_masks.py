"""Objects by masks that a person gives, instead of a segmenter's."""

from dataclasses import replace
from typing import Literal

from taming_core.objects.filters import Detections, Object, measure
from taming_core.params.sections import DetectParams
from taming_core.photos.decode import Photo
from taming_core.photos.mask_files import alpha_mask, read_mask
from taming_core.photos.masks import Mask, Size, box_iou, mask_box, scale_box
from taming_core.storage.paths import AnyPath

Given = tuple[Mask, Literal["given", "alpha"]]  # where an object is (H, W), and what says so

SAME = 0.5  # least intersection over union of the boxes of one object; usual in detection (PASCAL VOC)


def given_mask(photo: Photo, mask: AnyPath | None) -> Given | None:
    """The mask (H, W) of a photo's image from a file, or from its alpha channel; None if it has neither.

    Raises:
        PhotoError: the mask does not fit the photo.
    """
    if mask is not None:
        return read_mask(mask, photo), "given"
    alpha = alpha_mask(photo)
    return None if alpha is None else (alpha, "alpha")


def given_object(mask: Mask, detections: Detections, noun: str | None, p: DetectParams, size: Size) -> Object:
    """The object of a mask (H, W), with class and score of the detection that it overlaps best.

    Where none reaches `score`, the class is `noun` and the score 1: a person has seen the object. `size` is that of the
    photo, whose pixels the object's box is in; the detections are in pixels of the mask.
    """
    box, score = mask_box(mask), 1.0
    overlaps = [box_iou(box, other) for other in detections.boxes_xyxy.tolist()]
    same = [i for i, overlap in enumerate(overlaps) if overlap >= SAME and detections.scores[i] >= p.score]
    if same:
        best = max(same, key=lambda i: overlaps[i])
        score, noun = float(detections.scores[best]), detections.classes[best]
    measured = measure(box, score, noun, mask, None)
    return replace(measured, box_xyxy=scale_box(box, (mask.shape[1], mask.shape[0]), size))
