"""A folder of photos: every file below it sorted into photos, what belongs to them, and what does not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from itertools import compress
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.photos.benchmarks import Benchmark, find_benchmarks
from taming_core.photos.captions_beside import CaptionsBeside, is_caption, pair_captions, read_captions
from taming_core.photos.decode import open_image
from taming_core.photos.files import file_name, name_of, path_of
from taming_core.photos.formats import RAW_SUFFIXES
from taming_core.photos.layout import folder_split, wrapping_folder
from taming_core.photos.masks_beside import pair_masks
from taming_core.photos.metadata import Metadata, PhotoMetadata, is_metadata, read_metadata
from taming_core.photos.tree import Tree, read_near, read_tree
from taming_core.storage.paths import AnyPath, is_remote
from taming_core.storage.reading import map_reads, read_object

# Files with these endings are photos, readable or not; others are if they hold a picture of a usual format.
PICTURES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd",
    ".ico", ".qoi", *RAW_SUFFIXES,
])  # fmt: skip
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
HEADER = 2**18  # bytes of a file in a store, in which a picture of these formats says what it is
MASKS = "mask"  # how the names of folders begin where masks of photos beside them are
CONDITION = "-condlabel"  # OneTrainer's picture of a condition, beside a photo


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a folder, and what it says of each; all paths but `root` and `photos` are relative to it."""

    tree: Tree
    relative: tuple[Path, ...]  # photos, sorted; with unreadable folders, which may hold some
    metadata: dict[
        str, PhotoMetadata
    ]  # by file name, of each photo: of metadata files, captions and masks beside, and split folders
    tables: Metadata
    captions: CaptionsBeside
    texts: dict[Path, list[Path]]  # text files, with the photos that they stand beside
    masks: dict[Path, list[Path]]  # mask files, with their photos
    around: str = ""  # the folder, with a slash, that holds folders of splits and nothing else
    benchmarks: tuple[Benchmark, ...] = ()

    @property
    def root(self) -> AnyPath:
        """The folder itself."""
        return self.tree.root

    @cached_property
    def photos(self) -> tuple[AnyPath, ...]:
        """The paths of the photos."""
        return tuple(self.tree.path(photo) for photo in self.relative)

    @cached_property
    def sizes(self) -> dict[AnyPath, int]:
        """The bytes of each photo; 0 where it is no file."""
        return {path: self.tree.size(photo) for path, photo in zip(self.photos, self.relative, strict=True)}

    def of(self, name: str) -> PhotoMetadata:
        """What the folder says of the photo of this name."""
        return self.metadata.get(name, PhotoMetadata())

    def place(self, name: str) -> str:
        """The part of a photo's name that says its split, identity and class."""
        return name.removeprefix(self.around)


def list_photos(folder: AnyPath) -> list[AnyPath]:
    """The photos below `folder`, sorted by path; see `read_folder`."""
    return list(read_folder(folder).photos)


def read_folder(root: AnyPath) -> PhotoFolder:
    """The photos below `root`, with what metadata files, text files, masks and the names of folders say of them.

    Raises:
        TamingError: there is no such folder, no photo in it, or its metadata is wrong.
    """
    tree = read_tree(root)
    tables = read_metadata((path for path in tree.files if is_metadata(path)), tree)
    pictures = _pictures(tree, tables)
    masks = {**pair_masks(pictures), **_named_masks(tables, tree)}
    photos = sorted({*pictures, *tree.unreadable} - masks.keys() - _conditions(pictures))
    if not photos:
        raise TamingError(f"{root} holds no photos. Put some there, a sub-folder for each object that they show.")
    texts = [path for path in tree.files if is_caption(path)]
    benchmarks = find_benchmarks(photos, texts, tree)
    own = {name: row for benchmark in benchmarks for name, row in benchmark.photos.items()}
    texts = pair_captions(set(texts).difference(*(benchmark.texts for benchmark in benchmarks)), photos)
    captions = read_captions(texts, tree)
    mask_of = {photo: tree.path(mask) for mask, of in masks.items() for photo in of}
    metadata: dict[str, PhotoMetadata] = {}
    around = wrapping_folder([name_of(photo) for photo in photos])
    for photo in photos:
        name = name_of(photo)
        given = tables.photos.get(name, PhotoMetadata())
        listed = own.get(name, PhotoMetadata(split=folder_split(name.removeprefix(around))))
        metadata[name] = replace(
            given,
            identity=given.identity or listed.identity,
            noun=given.noun or listed.noun,
            caption=given.caption or captions.texts.get(photo),
            split=given.split or listed.split,
            mask=given.mask or mask_of.get(photo),
            left_out=listed.left_out,
        )
    return PhotoFolder(tree, tuple(photos), metadata, tables, captions, texts, masks, around, tuple(benchmarks))


def _pictures(tree: Tree, tables: Metadata) -> list[Path]:
    """The files that hold pictures, by their ending or content, or because metadata names them."""
    named = {path_of(name) for name in tables.photos}
    return sorted({*_picture_files(tree), *named})


def _picture_files(tree: Tree) -> list[Path]:
    """The files that are pictures by the end of their name, or by their first bytes."""
    unknown = [p for p in tree.files if p.suffix.lower() not in PICTURES and not is_caption(p) and not is_metadata(p)]
    unknown = [path for path in unknown if tree.size(path)]
    by_content = map_reads(_holds_picture, [tree.path(path) for path in unknown])
    return [*(path for path in tree.files if path.suffix.lower() in PICTURES), *compress(unknown, by_content)]


def _holds_picture(path: AnyPath) -> bool:
    """Whether a file holds a picture of a usual format, by its first bytes."""
    try:
        with open_image(BytesIO(read_object(path, HEADER)) if is_remote(path) else path, formats=FORMATS):
            return True
    except TamingError:
        raise
    except Exception:  # Pillow raises anything on files that are no pictures
        return False


def _named_masks(tables: Metadata, tree: Tree) -> dict[Path, list[Path]]:
    """The masks that metadata names, with their photos."""
    masks: dict[Path, list[Path]] = {}
    for name, row in tables.photos.items():
        if row.mask is not None:
            masks.setdefault(path_of(file_name(row.mask, tree.root)), []).append(path_of(name))
    return masks


def _conditions(pictures: Sequence[Path]) -> set[Path]:
    """The pictures of conditions beside photos."""
    stems = {path.with_suffix("") for path in pictures}
    return {p for p in pictures if p.stem.endswith(CONDITION) and p.with_name(p.stem.removesuffix(CONDITION)) in stems}


def mask_beside(photo: AnyPath) -> AnyPath | None:
    """The mask of one photo: beside it, or in a folder `masks` beside it."""
    tree, own = read_near(photo.parent, MASKS), Path(photo.name)
    pictures = list(dict.fromkeys([own, *_picture_files(tree)]))
    return next((tree.path(mask) for mask, of in pair_masks(pictures).items() if own in of), None)
