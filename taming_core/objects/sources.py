"""The photos of a folder, with the identity, class and split of each, before detection."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import pyarrow as pa

from taming_core.engine import manifest
from taming_core.engine.manifest import Listing
from taming_core.errors import TamingError
from taming_core.language.noun_kinds import is_physical
from taming_core.language.wordnet import normalize_spelling, singular
from taming_core.params.sections import DetectParams
from taming_core.photos.files import file_name, find_copies, photo_path, tree_state
from taming_core.photos.folder import PhotoFolder, read_folder
from taming_core.photos.folder_notes import notes
from taming_core.photos.layout import class_folder, folder_identity, top_folder_identity
from taming_core.photos.metadata import PhotoMetadata
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema

BY_FOLDER = {"folder": folder_identity, "top_folder": top_folder_identity}

MANIFEST = pa.schema([
    pa.field("file_name", pa.string(), nullable=False),
    *(pa.field(name, pa.string())
      for name in ("identity", "class", "caption", "split", "mask", "left_out", "copy_of")),
])  # fmt: skip


@dataclass(frozen=True)
class PhotoSource:
    """A photo file and its metadata, before detection."""

    path: AnyPath
    file_name: str
    identity: str | None  # None where each photo is an identity, or it is unknown
    metadata: PhotoMetadata
    copy_of: str | None  # file name of an earlier file with the same bytes


def list_sources(
    folder: PhotoFolder, identity: Literal["folder", "top_folder", "metadata", "photo"]
) -> list[PhotoSource]:
    """All photos of a folder, with the identity from metadata or else from the sub-folder.

    Raises:
        TamingError: the metadata lacks the identities that `identity` requires, or an identity has two splits.
    """
    if identity == "metadata" and not any(row.identity for row in folder.metadata.values()):
        raise TamingError(
            f"detect.identity is metadata, but no metadata file in {folder.root} has a column identity. "
            "Add metadata.csv with the columns file_name and identity, or set it to folder or photo."
        )
    original = find_copies(folder.sizes)

    def source(path: AnyPath, name: str) -> PhotoSource:
        row = folder.metadata[name]
        by_folder = BY_FOLDER[identity](folder.place(name)) if identity in BY_FOLDER else None
        copy_of = file_name(original[path], folder.root) if path in original else None
        row = replace(row, noun=row.noun or folder_class(folder.place(name))) if identity == "folder" else row
        return PhotoSource(path, name, None if identity == "photo" else row.identity or by_folder, row, copy_of)

    sources = [source(path, name) for path, name in zip(folder.photos, folder.metadata, strict=True)]
    _check_splits(sources)
    return sources


def list_folder(raw: AnyPath, path: Path, p: DetectParams) -> Listing:
    """List the photos below a folder into the manifest `path`.

    Raises:
        TamingError: there is no photo, or the metadata is wrong or lacks what the params require.
    """
    folder = read_folder(raw)
    rows = (_as_row(source, raw) for source in list_sources(folder, p.identity))
    count = manifest.write(rows, MANIFEST, path, p.shard_size)
    return Listing(path, count, tree_state(folder.tree), [*notes(folder), *class_notes(folder, p.identity)])


def _as_row(source: PhotoSource, raw: AnyPath) -> schema.Row:
    given = source.metadata
    return {
        "file_name": source.file_name,
        "identity": source.identity,
        "class": given.noun,
        "caption": given.caption,
        "split": given.split,
        "mask": None if given.mask is None else file_name(given.mask, raw),
        "left_out": given.left_out,
        "copy_of": source.copy_of,
    }


def source_of(row: schema.Row, raw: AnyPath) -> PhotoSource:
    """The photo of a row of the manifest."""
    mask = None if row["mask"] is None else photo_path(raw, row["mask"])
    given = PhotoMetadata(row["identity"], row["class"], row["caption"], row["split"], mask, row["left_out"])
    return PhotoSource(photo_path(raw, row["file_name"]), row["file_name"], row["identity"], given, row["copy_of"])


def folder_class(name: str) -> str | None:
    """The class of a photo in class/identity/photo.jpg, if the upper folder is named after an object.

    >>> folder_class("dogs/rex/1.jpg"), folder_class("2024/rex/1.jpg"), folder_class("things/rex/1.jpg")
    ('dog', None, None)
    """
    upper = class_folder(name)
    return None if upper is None else _object_noun(upper)


def class_notes(folder: PhotoFolder, identity: str) -> list[str]:
    """A line that says which classes are those of folders, where the folders are used."""
    names = [folder.place(name) for name, row in folder.metadata.items() if identity == "folder" and not row.noun]
    classes = {class_folder(name): noun for name in names if (noun := folder_class(name))}
    listed = (f"{noun} ({upper})" for upper, noun in sorted(classes.items(), key=str))
    return [f"classes by folders: {', '.join(listed)}"] if classes else []


@cache
def _object_noun(text: str) -> str | None:
    """The noun that a text is, in the singular; None if it is no physical object to WordNet."""
    noun = singular(normalize_spelling(text))
    return noun if is_physical(noun) else None


def _check_splits(sources: Iterable[PhotoSource]) -> None:
    """Raises TamingError if the photos of one identity are given different splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        if source.identity is not None and source.metadata.split is not None:
            splits[source.identity].add(source.metadata.split)
    for identity, found in splits.items():
        if len(found) > 1:
            raise TamingError(
                f"The folders or metadata put photos of '{identity}' into {' and '.join(sorted(found))}. "
                "Give all photos of one object the same split; if a folder is a class of many objects, set "
                "detect.identity to photo."
            )
