"""Photo files: which there are, upright RGB pixels out of any of them, and what the folder says about them."""

import csv
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from taming_core.errors import TamingError

open_image = Image.open  # bound early: ultralytics puts another in its place, which looks for plugins to install
MID_GREY = (128, 128, 128)
NOTES = ("metadata", "readme", "license", "licence", "notice", "copying")
UPRIGHT = {  # EXIF orientation -> what turns the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(Exception):
    """A file that gives no picture; the text becomes its drop reason."""


@dataclass(frozen=True)
class Photo:
    """An upright picture and the hash of its file."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    photo_id: str  # 16 hex digits


@dataclass(frozen=True)
class Given:
    """What the folder's metadata file says about one photo."""

    identity: str | None = None
    noun: str | None = None  # column `class`
    caption: str | None = None
    split: str | None = None


def list_photos(folder: Path) -> list[Path]:
    """Every file below `folder` in order of its name, whether it is a picture or not.

    Left out are what people keep beside their photos: metadata.*, hidden files, and notes (*.md, LICENSE, README).

    Raises:
        TamingError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise TamingError(f"{folder} is not a folder. Put photos there, or name the folder that holds them.")
    found = sorted(p for p in files_below(folder) if p.stem.lower() not in NOTES and p.suffix.lower() != ".md")
    if not found:
        raise TamingError(f"{folder} holds no photos. Put some there, a sub-folder for each thing that they show.")
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """All files below `folder` that are not hidden; linked folders are followed."""
    for parent, names, files in os.walk(folder, followlinks=True):
        names[:] = [n for n in names if not n.startswith(".")]
        yield from (Path(parent, n) for n in files if not n.startswith("."))


def folder_state(folder: Path) -> str:
    """16 hex digits that change when a file below `folder` is added, removed or written (name, size, time)."""
    digest = blake2b(digest_size=8)
    for path in sorted(files_below(folder)):
        about = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
        digest.update(f"{file_name(path, folder)}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def file_name(path: Path, folder: Path) -> str:
    """The photo's name in every table: its path below the raw folder, with forward slashes."""
    return path.relative_to(folder).as_posix()


def folder_identity(name: str) -> str | None:
    """The first folder of a file name; None for a photo that lies in no sub-folder.

    >>> folder_identity("my-dog/garden/1.jpg")
    'my-dog'
    """
    return name.split("/")[0] if "/" in name else None


def copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Each file that has the same bytes as an earlier one, with that earlier one; only files of one size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].append(path)
    first: dict[str, Path] = {}
    same = [p for group in by_size.values() if len(group) > 1 for p in group]
    return {p: original for p in same if (original := first.setdefault(hash_of(p.read_bytes()), p)) != p}


def hash_of(data: bytes) -> str:
    """16 hex digits that name the content of a file."""
    return blake2b(data, digest_size=8).hexdigest()


def photo_id_of(path: Path) -> str:
    """The `hash_of` a photo file; of nothing where the file cannot be opened."""
    try:
        return hash_of(path.read_bytes())
    except OSError:
        return hash_of(b"")


def read_photo(path: Path, min_side: int = 1) -> Photo:
    """The upright RGB picture in a file; of an animation the first frame.

    Raises:
        PhotoError: with the drop reason, if there is no picture or its shorter side has under `min_side` pixels.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"unreadable: {error.strerror}") from error
    image = _decoded(data)
    if min(image.size) < min_side:
        raise PhotoError(f"photo too small: {image.width}x{image.height}")
    return Photo(np.array(_srgb(image)), hash_of(data))


def _decoded(data: bytes) -> Image.Image:
    """The first frame in the bytes of a file, turned upright."""
    if not data:
        raise PhotoError("empty file")
    try:
        image = open_image(BytesIO(data))
        _check_size(image)
        image.load()
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (PhotoError, MemoryError):
        raise
    except (UnidentifiedImageError, ModuleNotFoundError) as error:  # the latter by that other one
        raise PhotoError("not an image" + (": HEIC or video" if data[4:8] == b"ftyp" else "")) from error
    except Image.DecompressionBombError as error:
        raise PhotoError("too many pixels") from error
    except Exception as error:  # decoders raise anything on damaged files; whatever it is becomes the row's reason
        raise PhotoError(f"unreadable: {error}") from error
    return image if turn is None else image.transpose(turn)


def _check_size(image: Image.Image) -> None:
    """Refuse before decoding what would fill the memory."""
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise PhotoError(f"too many pixels: {image.width}x{image.height}")


def _srgb(image: Image.Image) -> Image.Image:
    """Any kind of pixels as 8-bit sRGB, by the file's colour profile where it has one that is sound."""
    profile = image.info.get("icc_profile")
    image = _flat(_eight_bit(image))
    if profile is None:
        return image.convert("RGB")
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one of another kind of pixels
        return image.convert("RGB")
    return converted or image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grayscale of 16 bits by its full range, so that 65535 becomes 255; other pixels as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise PhotoError(f"unreadable: pixels of kind {image.mode}")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _flat(image: Image.Image) -> Image.Image:
    """No palette and no alpha: what shines through is mid-grey.

    Grey is what the encoder sees around a subject, and neither white nor black artwork vanishes on it.
    """
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (*MID_GREY, 255)), seen).convert("RGB")
    return image.convert("RGB") if image.mode in ("P", "1") else image


def difference_hash(image: NDArray[np.uint8]) -> int:
    """64 bits that hardly change when a photo (H, W, 3) is scaled or compressed: which of 8x8 cells outshine the next.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    small = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hamming(a: int, b: int) -> int:
    """How many bits differ.

    >>> hamming(0b1010, 0b0011)
    2
    """
    return (a ^ b).bit_count()


def read_metadata(folder: Path) -> dict[str, Given]:
    """What metadata.jsonl, .csv or .parquet say, by file name; in a sub-folder the names are relative to it.

    The columns are file_name and any of identity, class, caption, split. Others are ignored: files written for
    `datasets` often hold more.

    Raises:
        TamingError: a row without a file name, of a file that is not there, or a second row of one file.
    """
    given: dict[str, Given] = {}
    for path in sorted(p for p in files_below(folder) if p.stem == "metadata" and p.suffix in METADATA):
        for number, row in enumerate(_metadata_rows(path), start=1):
            if not row.get("file_name"):
                raise TamingError(f"{path}, row {number}, has no file_name. Add it to each row.")
            name = file_name(path.parent / str(row["file_name"]), folder)
            if not (folder / name).is_file():
                raise TamingError(f"{path} names {name}, which does not exist. Add the photo or remove the row.")
            if name in given:
                raise TamingError(f"{path} names {name} a second time. Remove one of the rows.")
            given[name] = Given(*(_text(row.get(column)) for column in ("identity", "class", "caption", "split")))
    return given


def _metadata_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = METADATA[path.suffix](path)
    except (ValueError, OSError) as error:
        raise TamingError(f"{path} cannot be read: {error}. Correct it or remove it.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise TamingError(f"{path} holds lines that are no objects. Write one {{...}} a line.")
    return rows


def _text(value: object) -> str | None:
    """A cell as text; None for an empty one."""
    return str(value) if value not in (None, "") else None


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


METADATA: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
