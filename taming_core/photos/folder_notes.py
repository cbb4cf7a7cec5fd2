"""What a stage says at its end of a folder of photos: what was read beside them, and every file that was not."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from taming_core.photos.files import name_of
from taming_core.photos.folder import PICTURES, PhotoFolder
from taming_core.photos.layout import lower_split_folder, top_split_folder
from taming_core.photos.masks_beside import is_called_mask

NAMED = 8  # names in a line; more are counted by their endings


def notes(folder: PhotoFolder) -> list[str]:
    """The lines about a folder; none if it holds nothing but photos."""
    captions, tables, tree = folder.captions, folder.tables, folder.tree
    own = (text for benchmark in folder.benchmarks for text in benchmark.texts)
    known = {*folder.relative, *folder.texts, *folder.masks, *tables.paths, *own}
    files = {
        "captions of several lines, joined": captions.joined,
        "captions read as Latin-1": captions.latin,
        "captions without words": captions.empty,
        "captions that cannot be read": captions.unreadable,
        "captions not used, since metadata has others": _overruled(folder),
        "text files not used": [path for path, photos in folder.texts.items() if not photos],
        "masks not used": [path for path, photos in folder.masks.items() if not photos],
        "photos, although they are called like masks": [p for p in folder.relative if is_called_mask(p)],
        "not photos": [path for path in tree.files if path not in known],
        "hidden photos left out": [path for path in tree.hidden if _is_photo(path)],
        "links to what is listed already": tree.links,
    }
    columns = [
        f"{tree.path(path)}: columns not used: {', '.join(sorted(names))}" for path, names in tables.unused.items()
    ]
    lines = [f"{title}: {_names(paths)}" for title, paths in files.items() if paths]
    return [*_taken(folder), *columns, *_lower_splits(folder), *_without_class(folder), *lines]


def _lower_splits(folder: PhotoFolder) -> list[str]:
    """A line about folders that are named like splits, but lie in those of objects."""
    found = sorted({split for name in folder.metadata if (split := lower_split_folder(folder.place(name)))})
    return [f"folders called like splits below others, no splits: {', '.join(found)}"] if found else []


def _without_class(folder: PhotoFolder) -> list[str]:
    """A line for each benchmark that does not say the class of all its subjects."""
    named = ((benchmark.name, benchmark.without_class) for benchmark in folder.benchmarks)
    return [f"subjects of {name} without a class: {_listed(subjects)}" for name, subjects in named if subjects]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _taken(folder: PhotoFolder) -> list[str]:
    """What was read beside the photos, in one line."""
    splits = sorted({split for name in folder.metadata if (split := top_split_folder(folder.place(name)))})
    parts = [
        *map(str, folder.benchmarks),
        *map(name_of, folder.tables.paths),
        *_counted(len(folder.captions.texts), "caption", "beside photos"),
        *_counted(sum(row.mask is not None for row in folder.metadata.values()), "mask", "given"),
        *([f"splits by the folders {', '.join(splits)}"] if splits else []),
    ]
    return [f"{folder.root}: {', '.join(parts)}"] if parts else []


def _counted(number: int, noun: str, more: str) -> list[str]:
    return [f"{number} {noun}{'s' if number > 1 else ''} {more}"] if number else []


def _overruled(folder: PhotoFolder) -> list[Path]:
    """The text files whose words are not used, because metadata has a caption of each of their photos."""
    given = {name for name, row in folder.tables.photos.items() if row.caption}
    return [text for text, of in folder.texts.items() if of and all(name_of(p) in given for p in of)]


def _is_photo(path: Path) -> bool:
    """Whether a hidden file may be a photo; those that begin with `._` are notes of macOS about another file."""
    return path.suffix.lower() in PICTURES and not path.name.startswith("._")


def _names(paths: Sequence[Path]) -> str:
    """The names of files; of many the first ones, and how many more have each ending."""
    names = [name_of(path) for path in paths]
    rest = Counter(path.suffix.lower() or "without ending" for path in paths[NAMED:])
    more = f" and {len(paths) - NAMED} more ({', '.join(f'{n} {end}' for end, n in rest.most_common())})"
    return ", ".join(names[:NAMED]) + (more if rest else "")


def print_notes(folders: Iterable[PhotoFolder]) -> None:
    """Print the lines about folders on standard output."""
    for folder in folders:
        for note in notes(folder):
            print(note)
