"""What the folders of a photo's name say: its split, its identity and its class."""

# Source: `datasets`, data_files.py, the keywords of each split.
SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
CONTAINERS = frozenset(["image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"])


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
