"""Masks beside photos, found by their names in the layouts of training toolkits."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taming_core.photos.layout import CONTAINERS, by_name

ONETRAINER = "-masklabel"  # 0-masklabel.png beside 0.jpg, a mask even without its photo
# 0_mask.png, and mask_0.png; 0_mask_2.png is another mask of the same photo.
MARKED = re.compile(
    r"(?P<stem>.+)(?P<mark>[-_.]mask(label)?s?)(?P<number>[-_]?\d+)?|(?P<start>mask[-_])(?P<rest>.+)", re.IGNORECASE
)
# ai-toolkit's masks/0.png, in any folder of the photo's path, or in place of a folder `images`; gt in research.
FOLDERS = frozenset(["mask", "masks", "matte", "mattes", "gt", "ground_truth", "groundtruth", "segmentation"])
MASK_WORD = re.compile(
    r"(?<![a-z])(masks?|masklabel|mattes?|gt|ground_?truth|segmentations?|segmentation(class|object)|annotations)(?![a-z])"
)
FOLDER_END = re.compile(r"(?P<photos>.+)[-_]masks?", re.IGNORECASE)  # dog_masks/0.png for dog/0.jpg


@dataclass(frozen=True)
class _Candidate:
    """A photo that a picture could be the mask of."""

    stem: Path  # the photo's path without suffix
    layout: tuple[Path, str]  # the picture's folder, and the end of its stem; one layout is that of all or of none


def pair_masks(pictures: Sequence[Path]) -> dict[Path, list[Path]]:
    """The masks among pictures, by paths relative to a folder, each with its photos; a photo has one mask at most.

    A picture is a mask if its name is that of a photo with a mark, or if it lies among others that are.

    >>> photo, mask, rest = Path("a/0.jpg"), Path("a/masks/0.png"), Path("a/masks/1.png")
    >>> pair_masks([photo, mask, rest, Path("carnival/masks/0.jpg")]) == {mask: [photo], rest: []}
    True
    """
    photos_of = by_name(pictures)
    candidates = {p: found for p in pictures if (found := list(_candidates(p)))}
    layouts = {c.layout for p, found in candidates.items() for c in found if set(photos_of(c.stem)) - {p}}
    masks = [p for p, found in candidates.items() if any(c.layout in layouts or _is_certain(c) for c in found)]
    photos = set(pictures) - set(masks)
    pairs: dict[Path, list[Path]] = {}
    for mask in masks:
        named = (photo for c in candidates[mask] for photo in photos_of(c.stem))
        pairs[mask] = [photo for photo in dict.fromkeys(named) if photo in photos]
        photos.difference_update(pairs[mask])
    return pairs


def _is_certain(candidate: _Candidate) -> bool:
    return candidate.layout[1] == ONETRAINER


def _candidates(picture: Path) -> Iterator[_Candidate]:
    stem, mark = _marked(picture.stem)
    if mark:
        yield _Candidate(picture.parent / stem, (picture.parent, mark))
    parts = picture.parent.parts
    for i, part in enumerate(parts):
        for between in _photo_folders(part):
            folder = Path(*parts[:i], *between, *parts[i + 1 :])
            yield from (_Candidate(folder / name, (picture.parent, "")) for name in dict.fromkeys((picture.stem, stem)))


def _marked(stem: str) -> tuple[str, str]:
    """The stem of the photo that a picture's stem names, and the mark of a mask; the stem itself without one.

    >>> _marked("0-masklabel"), _marked("0_Mask_2"), _marked("mask_0"), _marked("0")
    (('0', '-masklabel'), ('0', '_mask2'), ('0', 'mask_'), ('0', ''))
    """
    found = MARKED.fullmatch(stem)
    if found is None:
        return stem, ""
    number = (found["number"] or "").lstrip("-_")
    return found["stem"] or found["rest"], (found["mark"] or found["start"]).lower() + number


def _photo_folders(folder: str) -> Iterator[tuple[str, ...]]:
    """The folders that may hold the photos of a folder of masks, in its place; none for another folder.

    >>> list(_photo_folders("dog_masks")), list(_photo_folders("dog")), () in _photo_folders("Masks")
    ([('dog',)], [], True)
    """
    found = FOLDER_END.fullmatch(folder)
    if folder.lower() in FOLDERS:
        yield from ((), *((name,) for name in sorted(CONTAINERS)))
    elif found is not None:
        yield (found["photos"],)


def is_called_mask(picture: Path) -> bool:
    """Whether a picture's name, or that of a folder of its relative path, has a word for masks.

    >>> is_called_mask(Path("SegmentationClass/0.png")), is_called_mask(Path("damask/0.png"))
    (True, False)
    """
    return MASK_WORD.search(str(picture).lower()) is not None
