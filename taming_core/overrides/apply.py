"""The rows of one photo with what a person said of its objects."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from taming_core.drop_reasons import REJECTED
from taming_core.overrides.matching import Correction, assign, box_of, size_of
from taming_core.overrides.table import REJECT, RESTORE
from taming_core.photos.masks import decode_mask, mask_box
from taming_core.tables import schema

Row = dict[str, Any]


class Corrected(NamedTuple):
    """The rows of a photo, and the corrections that mean no object in it."""

    rows: list[Row]
    unmatched: list[Correction]


def correct(rows: Sequence[schema.Row], said: Sequence[Correction]) -> Corrected:
    """The rows of one photo in the table of objects, corrected; a mask that fits none of them is an object of its own.

    Args:
        rows: all of one photo, as `taming detect` wrote them.
        said: of that photo.
    """
    if rows[0]["photo_width"] is None:
        return Corrected([dict(row) for row in rows], list(said))
    meant = assign(rows, said)
    corrected = [_corrected(row, said[meant[i]]) if i in meant else dict(row) for i, row in enumerate(rows)]
    missing = [c for j, c in enumerate(said) if j not in meant.values()]
    objects = [row for row in corrected if row["object_id"]]
    new = [c for c in missing if _is_object(c)]
    objects += [_added(rows[0], c, len(objects) + n) for n, c in enumerate(new)]
    kept = _with_main(objects) if objects else corrected
    return Corrected(_with_photo(kept), [c for c in missing if not _is_object(c)])


def _is_object(c: Correction) -> bool:
    """Whether a person showed where an object is that they want."""
    return c.decision != REJECT and (c.mask is not None or (c.decision == RESTORE and c.seen_mask is not None))


def _corrected(row: schema.Row, c: Correction) -> Row:
    """A row with what was said of its object."""
    mask = c.mask or (c.seen_mask if c.decision == RESTORE and row["mask_png"] is None else None)
    out = {**row, **(_measured(mask, row) if mask else {}), "override": names(c), "override_caption": c.caption}
    if c.noun is not None:
        out |= {"class": c.noun, "class_score": None}
    if c.decision is not None:
        out |= {"drop_reason": REJECTED if c.decision == REJECT else None}
    return out


def _measured(png: bytes, row: schema.Row) -> Row:
    """The columns of an object that its mask decides; what models measured with another mask is left out."""
    mask = decode_mask(png)
    x0, y0, x1, y1 = mask_box(mask)
    return {
        "box_xyxy": list(box_of(mask, size_of(row))),
        "mask_png": png,
        "mask_quality": None,
        "mask_source": "override",
        "area_fraction": float(mask.mean()),
        "mask_fill": float(mask[y0:y1, x0:x1].mean()),
        "sharpness": None,
        "scores": None,
    }


def _added(photo: schema.Row, c: Correction, number: int) -> Row:
    """The row of an object that only a person found; as sure as a mask that is given."""
    object_id = f"{photo['photo_id']}-{number}"
    of_photo = {name: photo[name] for name in PHOTO_COLUMNS}
    identity = object_id if number else photo["identity"]
    bare: Row = {**dict.fromkeys(schema.OBJECTS.names), **of_photo, "object_id": object_id, "identity": identity,
            "class": photo["given_class"], "score": 1.0, "mask_png": c.mask or c.seen_mask}  # fmt: skip
    noun = c.noun if c.noun is not None else c.seen_class or bare["class"]
    found = {**_corrected({**bare, **_measured(bare["mask_png"], photo)}, c), "class": noun}
    return found | {"override": ["added", *(name for name in names(c) if name not in ("restored", "mask"))]}


PHOTO_COLUMNS = (
    "photo_id", "file_name", "photo_width", "photo_height", "photo_hash", "photo_thumbnail", "photo_reason",
    "given_caption", "given_class", "given_split",
)  # fmt: skip


def names(c: Correction) -> list[str]:
    """What was said, as the column `override` has it."""
    decided = {REJECT: ["rejected"], RESTORE: ["restored"]}.get(c.decision or "", [])
    return decided + [field for field in c.fields if field != "decision"]


def _with_main(objects: Sequence[Row]) -> list[Row]:
    """The objects, one of which has the photo's identity and class: if that one is dropped now, a kept one has them."""
    main = next((o for o in objects if o["identity"] != o["object_id"]), None)
    kept = [o for o in objects if o["drop_reason"] is None]
    free = [o for o in kept if o["identity"] == o["object_id"]]
    if main is None or main["drop_reason"] is None or not free or len(free) < len(kept):
        return list(objects)
    heir = min(free, key=lambda o: o["class"] != o["given_class"])
    noun = heir["class"] if "class" in (heir["override"] or ()) else heir["given_class"] or heir["class"]
    moved: Mapping[str, Row] = {
        main["object_id"]: {"identity": main["object_id"]},
        heir["object_id"]: {"identity": main["identity"], "class": noun},
    }
    return [o | moved.get(o["object_id"], {}) for o in objects]


def _with_photo(rows: Sequence[Row]) -> list[Row]:
    """The rows of a photo, which is used where a person wants one of its objects."""
    wanted = any({"restored", "added"} & set(row["override"] or ()) and row["drop_reason"] is None for row in rows)
    return [row | {"photo_reason": None} if wanted else row for row in rows]
