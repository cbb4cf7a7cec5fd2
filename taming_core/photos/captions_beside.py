"""Captions in text files beside photos: 0.txt or 0.caption beside 0.jpg, as training toolkits have them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taming_core.photos.layout import by_name
from taming_core.photos.text import LATIN, clean, read_text
from taming_core.photos.tree import Tree
from taming_core.storage.paths import AnyPath
from taming_core.storage.reading import map_reads

NO_WORDS = re.compile(r"[\d\s.,eE+-]*")  # nothing, or the boxes of a detection data set
SUFFIXES = (".txt", ".caption")  # the preferred one first


@dataclass(frozen=True)
class CaptionsBeside:
    """The captions beside photos, and what a person should know of their files; all paths are relative."""

    texts: dict[Path, str] = field(default_factory=dict[Path, str])  # by photo
    empty: list[Path] = field(default_factory=list[Path])
    joined: list[Path] = field(default_factory=list[Path])  # of several lines
    latin: list[Path] = field(default_factory=list[Path])  # not in UTF-8
    unreadable: list[Path] = field(default_factory=list[Path])


def is_caption(path: Path) -> bool:
    """Whether a file can be a caption by its name."""
    return path.suffix.lower() in SUFFIXES


def pair_captions(texts: Iterable[Path], photos: Sequence[Path]) -> dict[Path, list[Path]]:
    """The text files with the photos that each stands beside; a photo has one file at most.

    >>> photos = [Path("0.jpg"), Path("0.png")]
    >>> pairs = pair_captions([Path("0.caption"), Path("0.txt"), Path("1.txt")], photos)
    >>> pairs == {Path("0.txt"): photos, Path("1.txt"): [], Path("0.caption"): []}
    True
    """
    beside, free = by_name(photos), set(photos)  # 0.txt, or 0.jpg.txt
    pairs: dict[Path, list[Path]] = {}
    for text in sorted(texts, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path)):
        pairs[text] = [photo for photo in beside(text.with_suffix("")) if photo in free]
        free.difference_update(pairs[text])
    return pairs


def read_captions(pairs: Mapping[Path, Sequence[Path]], tree: Tree) -> CaptionsBeside:
    """The captions in text files; several lines are one caption, as in ai-toolkit, so that no word is lost."""
    found = CaptionsBeside()
    paired = {path: photos for path, photos in pairs.items() if photos}
    texts = map_reads(_text, [tree.path(path) for path in paired])
    for (path, photos), text in zip(paired.items(), texts, strict=True):
        _add_caption(path, photos, text, found)
    return found


def _text(path: AnyPath) -> tuple[str, str] | None:
    """The text of a file and its encoding; None if it cannot be read."""
    try:
        return read_text(path)
    except (OSError, ValueError):
        return None


def _add_caption(path: Path, photos: Sequence[Path], read: tuple[str, str] | None, found: CaptionsBeside) -> None:
    if read is None:
        found.unreadable.append(path)
        return
    text, encoding = read
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if NO_WORDS.fullmatch(text):
        found.empty.append(path)
        return
    found.texts.update(dict.fromkeys(photos, clean(" ".join(lines))))
    if len(lines) > 1:
        found.joined.append(path)
    if encoding == LATIN:
        found.latin.append(path)
