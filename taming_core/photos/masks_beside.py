"""Masks beside photos, found by their names in the layouts of training toolkits."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taming_core.photos.layout import CONTAINERS

ONETRAINER = "-masklabel"  # 0-masklabel.png beside 0.jpg, a mask even without its photo
STEM_ENDS = (ONETRAINER, "_masklabel", "_mask", "-mask", ".mask")
# ai-toolkit's masks/0.png, in any folder of the photo's path, or in place of a folder `images`.
FOLDERS = frozenset(["mask", "masks"])


@dataclass(frozen=True)
class _Candidate:
    """A photo that a picture could be the mask of."""

    stem: Path  # the photo's path without suffix
    layout: tuple[Path, str]  # the picture's folder, and the end of its stem; one layout is that of all or of none


def pair_masks(pictures: Sequence[Path], root: Path) -> dict[Path, list[Path]]:
    """The masks among the pictures below `root`, each with its photos; a photo has one mask at most.

    A picture is a mask if its name is that of a photo with a mark, or if it lies among others that are.

    >>> photo, mask, rest = Path("a/0.jpg"), Path("a/masks/0.png"), Path("a/masks/1.png")
    >>> pair_masks([photo, mask, rest, Path("carnival/masks/0.jpg")], Path()) == {mask: [photo], rest: []}
    True
    """
    by_stem: dict[Path, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_stem[picture.with_suffix("")].append(picture)
    candidates = {p: found for p in pictures if (found := list(_candidates(p, root)))}
    layouts = {c.layout for p, found in candidates.items() for c in found if set(by_stem.get(c.stem, [])) - {p}}
    masks = [p for p, found in candidates.items() if any(c.layout in layouts or _is_certain(c) for c in found)]
    photos = set(pictures) - set(masks)
    pairs: dict[Path, list[Path]] = {}
    for mask in masks:
        named = (photo for c in candidates[mask] for photo in by_stem.get(c.stem, []))
        pairs[mask] = [photo for photo in dict.fromkeys(named) if photo in photos]
        photos.difference_update(pairs[mask])
    return pairs


def _is_certain(candidate: _Candidate) -> bool:
    return candidate.layout[1] == ONETRAINER


def _candidates(picture: Path, root: Path) -> Iterator[_Candidate]:
    ends = [end for end in STEM_ENDS if picture.stem.lower().endswith(end) and len(picture.stem) > len(end)]
    stems = {"": picture.stem, **{end: picture.stem[: -len(end)] for end in ends}}
    yield from (_Candidate(picture.parent / stems[end], (picture.parent, end)) for end in ends)
    parts = picture.relative_to(root).parent.parts
    for i in (i for i, part in enumerate(parts) if part.lower() in FOLDERS):
        for between in ((), *((name,) for name in sorted(CONTAINERS))):
            folder = Path(root, *parts[:i], *between, *parts[i + 1 :])
            yield from (_Candidate(folder / stem, (picture.parent, "")) for stem in stems.values())
