"""The output folder of `taming generate`: names of pictures, and generation.json, which says how each was made."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from taming_core.errors import TamingError
from taming_core.files import read_json, require_expanded, with_hash, write_json

Json = dict[str, Any]
RECORD, SHEET = "generation.json", "sheet.png"


def file_names(readable: Sequence[str], entries: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    """A file name for each image, which no image that was made otherwise and no other file in `out` has.

    It is the readable name, with a hash of the record where that name is taken. So the same request has the same name
    again, and replaces nothing but itself.

    Args:
        readable: the name that an image has if it is free, without its ending.
        entries: the record of each image.
        out: the folder.
    """
    taken = {name: made_by(entry) for name, entry in read_records(out).items()}
    here = {path.name.lower() for path in out.iterdir()} if out.is_dir() else set[str]()
    names: list[str] = []
    for stem, entry in zip(readable, entries, strict=True):
        made, name = made_by(entry), f"{stem}.png"
        if taken.get(name, "" if name in here else made) != made:
            name = f"{with_hash(stem, made)}.png"
        taken[name] = made
        names.append(name)
    return names


def made_by(entry: Mapping[str, Any]) -> str:
    """What decides the pixels of a recorded image, as JSON: all of the record but where its inputs lie."""
    encoder: Any = entry.get("encoder")
    weights = cast("Json", encoder).get("fingerprint") if isinstance(encoder, dict) else encoder
    return json.dumps({**entry, "objects": None, "encoder": weights}, sort_keys=True)


def read_records(out: Path) -> dict[str, Any]:
    """The records in a folder of earlier images, by file name; empty if there is none.

    Raises:
        TamingError: generation.json is no record of images.
    """
    path = out / RECORD
    if not path.exists():
        return {}
    found: Any = None
    with suppress(OSError, ValueError, TamingError):
        found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in cast("Json", found).values()):
        raise TamingError(f"{path} is no record of images that `taming generate` drew. Name another --out.")
    return cast("Json", found)


def add_record(name: str, entry: Mapping[str, Any], out: Path) -> None:
    """Write the record of an image to generation.json; those of other images are kept."""
    write_json(out / RECORD, {**read_records(out), name: entry})


def newest(out: Path, limit: int) -> list[tuple[str, Json]]:
    """The recorded images in a folder by their file names, with their records, the last written first.

    Args:
        out: the folder.
        limit: how many at most.
    """
    there = [(name, entry) for name, entry in read_records(out).items() if (out / name).is_file()]
    return sorted(there, key=lambda named: (out / named[0]).stat().st_mtime_ns, reverse=True)[:limit]


def require_out(out: Path, inputs: Sequence[Path]) -> None:
    """Require an output folder: new, or any with a record of images or without files of the names that are written.

    Raises:
        TamingError: it is a file or below one, cannot be written, holds a foreign file, is in a folder of photos, or an
            input would be replaced.
    """
    require_expanded(out)
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise TamingError(f"--out is {out}, and {there} is a file. Name a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise TamingError(f"{there} cannot be written to. Name another folder with --out.")
    for folder in (path.resolve() for path in inputs if path.is_dir()):
        if folder in (out.resolve(), *out.resolve().parents):
            raise TamingError(f"--out is {out}, in a folder of photos of the object, of which images would become "
                              "some. Name another --out.")  # fmt: skip
    if not read_records(out) and (out / SHEET).exists():
        raise TamingError(f"{out / SHEET} is of something else, and would be replaced. Name another --out.")
    if any(path.exists() and (out / SHEET).exists() and path.samefile(out / SHEET) for path in inputs):
        raise TamingError(f"{out / SHEET} is an input, and would be replaced. Name another --out.")
