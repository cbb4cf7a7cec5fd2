"""What the name of a photo says: its split, its identity and its class, and which files beside it are its own."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

# Source: `datasets`, data_files.py, the keywords of each split.
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
CONTAINERS = frozenset(["image", "images", "img", "imgs", "im", "jpegimages", "photo", "photos", "picture", "pictures"])


def split_name(text: str) -> str:
    """A split in its own word, if it is known.

    >>> split_name("Val"), split_name("train"), split_name("other")
    ('validation', 'train', 'other')
    """
    return SPLITS.get(text.lower(), text)


def _folders(name: str) -> list[str]:
    """The folders of a file name without those that only say that photos are in them."""
    return [folder for folder in name.split("/")[:-1] if folder.lower() not in CONTAINERS]


def folder_split(name: str) -> str | None:
    """The split of a file name whose top folder is named like one.

    >>> folder_split("Train/robot/1.jpg"), folder_split("images/val/1.jpg"), folder_split("robot/train/1.jpg")
    ('train', 'validation', None)
    """
    folder = top_split_folder(name)
    return None if folder is None else split_name(folder)


def top_split_folder(name: str) -> str | None:
    """The top folder of a file name, if it is named like a split."""
    top = next(iter(_folders(name)), "")
    return top if top.lower() in SPLITS else None


def wrapping_folder(names: Sequence[str]) -> str:
    """The folder, with a slash, that holds folders of splits and nothing else, such as that of an unpacked archive.

    >>> wrapping_folder(["data/train/robot/1.jpg", "data/test/canoe/1.jpg"]), wrapping_folder(["robot/train/1.jpg"])
    ('data/', '')
    """
    around = f"{names[0].partition('/')[0]}/"
    inner = [name.removeprefix(around) for name in names]
    is_around = all(name.startswith(around) and top_split_folder(name) is None for name in names)
    return around if is_around and any(top_split_folder(n) and object_folders(n) for n in inner) else ""


def lower_split_folder(name: str) -> str | None:
    """The path of a folder that is named like a split, but lies in that of an object.

    >>> lower_split_folder("robot/train/1.jpg"), lower_split_folder("train/robot/1.jpg")
    ('robot/train', None)
    """
    folders = name.split("/")[:-1]
    found = [i for i, folder in enumerate(folders) if folder.lower() in SPLITS]
    return "/".join(folders[: found[0] + 1]) if found and top_split_folder(name) is None else None


def object_folders(name: str) -> list[str]:
    """The folders of a file name that speak of its object: those below its split.

    >>> object_folders("train/dogs/rex/images/1.jpg"), object_folders("1.jpg")
    (['dogs', 'rex'], [])
    """
    return _folders(name)[1 if top_split_folder(name) else 0 :]


def folder_identity(name: str) -> str | None:
    """The identity of a photo in a folder: the whole path of the folder, since dogs/1 is not cats/1.

    >>> folder_identity("train/dogs/1/a.jpg"), folder_identity("my-dog/a.jpg"), folder_identity("a.jpg")
    ('dogs/1', 'my-dog', None)
    """
    return "/".join(object_folders(name)) or None


def top_folder_identity(name: str) -> str | None:
    """The top folder of a file name, below its split.

    >>> top_folder_identity("my-dog/garden/1.jpg"), top_folder_identity("1.jpg")
    ('my-dog', None)
    """
    return next(iter(object_folders(name)), None)


def class_folder(name: str) -> str | None:
    """The upper folder where a photo lies in two: class/identity/photo.jpg.

    >>> class_folder("dogs/rex/1.jpg"), class_folder("rex/1.jpg"), class_folder("a/b/c/1.jpg")
    ('dogs', None, None)
    """
    folders = object_folders(name)
    return folders[0] if len(folders) == 2 else None


def by_name(photos: Iterable[Path]) -> Callable[[Path], list[Path]]:
    """A look-up of the photos that a file beside them is called after: with or without ending.

    Those of the same letters go first, and then those that phones, Macs and Windows do not tell apart.

    >>> look_up = by_name([Path("a/IMG.JPG"), Path("a/1.jpg"), Path("a/1.png")])
    >>> look_up(Path("a/1")) == [Path("a/1.jpg"), Path("a/1.png")], look_up(Path("a/img.jpg")), look_up(Path("a/2"))
    (True, [PosixPath('a/IMG.JPG')], [])
    """

    def plain(name: Path) -> str:
        return unicodedata.normalize("NFC", str(name)).casefold()

    named: dict[Path, list[Path]] = defaultdict(list)
    alike: dict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        for name in (photo.with_suffix(""), photo):
            named[name].append(photo)
            alike[plain(name)].append(photo)
    return lambda name: named.get(name) or alike.get(plain(name), [])
