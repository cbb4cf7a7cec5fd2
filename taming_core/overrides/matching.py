"""Which object each correction means: by the content of the photo and the place of the object in it.

The ids of objects count a detector's boxes, which another one orders otherwise; what a person saw is a place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from taming_core.overrides.table import Override
from taming_core.photos.masks import Box, Mask, Size, box_iou, decode_mask, mask_box, scale_box
from taming_core.tables import schema

# Least intersection over union of the boxes of one object. A detector's non-maximum suppression leaves boxes that
# overlap up to 0.7 (the default of ultralytics), and they may be of two objects.
SAME = 0.7


@dataclass(frozen=True)
class Correction:
    """All that counts of what a person said of one object; None where nothing was said."""

    photo_id: str
    file_name: str
    box_xyxy: Box  # when it was said first
    seen_class: str | None
    decision: str | None = None
    mask: bytes | None = None  # PNG
    noun: str | None = None
    caption: str | None = None
    seen_mask: bytes | None = None  # of the decision

    @property
    def fields(self) -> list[str]:
        """What was said."""
        said = {"decision": self.decision, "mask": self.mask, "class": self.noun, "caption": self.caption}
        return [field for field, value in said.items() if value is not None]


def corrections(overrides: Iterable[Override]) -> dict[str, list[Correction]]:
    """The corrections of each photo by its photo_id, in the order in which they were begun."""
    found: dict[tuple[str, Box], Correction] = {}
    for o in overrides:
        begun = found.get((o.photo_id, o.box_xyxy)) or Correction(o.photo_id, o.file_name, o.box_xyxy, o.seen_class)
        found[o.photo_id, o.box_xyxy] = _with(begun, o)
    of_photo: dict[str, list[Correction]] = {}
    for correction in found.values():
        of_photo.setdefault(correction.photo_id, []).append(correction)
    return of_photo


def _with(c: Correction, o: Override) -> Correction:
    if o.field == "decision":
        return replace(c, decision=o.text, seen_mask=o.mask_png)
    if o.field == "mask":
        return replace(c, mask=o.mask_png)
    return replace(c, noun=o.text) if o.field == "class" else replace(c, caption=o.text)


def assign(rows: Sequence[schema.Row], said: Sequence[Correction]) -> dict[int, int]:
    """Which correction is meant for which row: indices of `said` by those of `rows`.

    The best pairs first: by the overlap of the boxes, then by the class, then in the order of both.

    Args:
        rows: of one photo, in the table of objects.
        said: of that photo.
    """
    pairs = sorted(
        (-overlap, said[j].seen_class != row["class"], i, j)
        for i, row in enumerate(rows)
        for j in range(len(said))
        if row["object_id"] and (overlap := _overlap(row, said[j])) >= SAME
    )
    assigned: dict[int, int] = {}
    for _, _, i, j in pairs:
        if i not in assigned and j not in assigned.values():
            assigned[i] = j
    return assigned


def _overlap(row: schema.Row, c: Correction) -> float:
    """How well a row fits what was seen, or the mask that was said of it."""
    boxes = [c.box_xyxy] if c.mask is None else [c.box_xyxy, box_of(decode_mask(c.mask), size_of(row))]
    return max(box_iou(row["box_xyxy"], box) for box in boxes)


def size_of(row: schema.Row) -> Size:
    """Width and height of the upright photo of a row of objects."""
    return row["photo_width"], row["photo_height"]


def box_of(mask: Mask, size: Size) -> Box:
    """The box of a mask (H, W) in pixels of the upright photo, whose width and height are `size`."""
    return scale_box(mask_box(mask), (mask.shape[1], mask.shape[0]), size)
