"""A folder of photos: every file below it sorted into photos, what belongs to them, and what does not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.photos.benchmarks import Benchmark, find_benchmarks
from taming_core.photos.captions_beside import CaptionsBeside, is_caption, pair_captions, read_captions
from taming_core.photos.decode import open_image
from taming_core.photos.files import Tree, file_name, is_file, photo_path, read_tree
from taming_core.photos.formats import RAW_SUFFIXES
from taming_core.photos.layout import folder_split, wrapping_folder
from taming_core.photos.masks_beside import pair_masks
from taming_core.photos.metadata import Metadata, PhotoMetadata, is_metadata, read_metadata

# Files with these endings are photos, readable or not; others are if they hold a picture of a usual format.
PICTURES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd",
    ".ico", ".qoi", *RAW_SUFFIXES,
])  # fmt: skip
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
CONDITION = "-condlabel"  # OneTrainer's picture of a condition, beside a photo


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a folder, and what it says of each."""

    tree: Tree
    photos: tuple[Path, ...]  # sorted; with unreadable folders, which may hold some
    metadata: dict[str, PhotoMetadata]  # by file name: of metadata files, captions and masks beside, and split folders
    tables: Metadata
    captions: CaptionsBeside
    texts: dict[Path, list[Path]]  # text files, with the photos that they stand beside
    masks: dict[Path, list[Path]]  # mask files, with their photos
    around: str = ""  # the folder, with a slash, that holds folders of splits and nothing else
    benchmarks: tuple[Benchmark, ...] = ()

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.tree.root

    def of(self, name: str) -> PhotoMetadata:
        """What the folder says of the photo of this name."""
        return self.metadata.get(name, PhotoMetadata())

    def place(self, name: str) -> str:
        """The part of a photo's name that says its split, identity and class."""
        return name.removeprefix(self.around)


def list_photos(folder: Path) -> list[Path]:
    """The photos below `folder`, sorted by path; see `read_folder`."""
    return list(read_folder(folder).photos)


def read_folder(root: Path) -> PhotoFolder:
    """The photos below `root`, with what metadata files, text files, masks and the names of folders say of them.

    Raises:
        TamingError: there is no such folder, no photo in it, or its metadata is wrong.
    """
    tree = read_tree(root)
    tables = read_metadata((path for path in tree.files if is_metadata(path)), root)
    pictures = _pictures(tree, tables)
    masks = {**pair_masks(pictures, root), **_named_masks(tables, root)}
    photos = sorted({*pictures, *tree.unreadable} - masks.keys() - _conditions(pictures))
    if not photos:
        raise TamingError(f"{root} holds no photos. Put some there, a sub-folder for each object that they show.")
    texts = [path for path in tree.files if is_caption(path)]
    benchmarks = find_benchmarks(photos, texts, root)
    own = {name: row for benchmark in benchmarks for name, row in benchmark.photos.items()}
    texts = pair_captions(set(texts).difference(*(benchmark.texts for benchmark in benchmarks)), photos)
    captions = read_captions(texts)
    mask_of = {photo: mask for mask, of in masks.items() for photo in of}
    metadata: dict[str, PhotoMetadata] = {}
    around = wrapping_folder([file_name(photo, root) for photo in photos])
    for photo in photos:
        name = file_name(photo, root)
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
    named = {photo_path(tree.root, name) for name in tables.photos}
    return sorted({path for path in tree.files if is_picture(path)} | named)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by the end of its name, or by its first bytes."""
    if path.suffix.lower() in PICTURES:
        return True
    if is_caption(path) or is_metadata(path) or not is_file(path):
        return False
    try:
        with open_image(path, formats=FORMATS):
            return True
    except Exception:  # Pillow raises anything on files that are no pictures
        return False


def _named_masks(tables: Metadata, root: Path) -> dict[Path, list[Path]]:
    """The masks that metadata names, with their photos."""
    masks: dict[Path, list[Path]] = {}
    for name, row in tables.photos.items():
        if row.mask is not None:
            masks.setdefault(row.mask, []).append(photo_path(root, name))
    return masks


def _conditions(pictures: Sequence[Path]) -> set[Path]:
    """The pictures of conditions beside photos."""
    stems = {path.with_suffix("") for path in pictures}
    return {p for p in pictures if p.stem.endswith(CONDITION) and p.with_name(p.stem.removesuffix(CONDITION)) in stems}


def mask_beside(photo: Path) -> Path | None:
    """The mask of one photo: beside it, or in a folder `masks` beside it."""
    near = [photo, *photo.parent.glob("*"), *photo.parent.glob("[mM][aA][sS][kK]*/*")]
    pictures = [path for path in dict.fromkeys(near) if path == photo or is_picture(path)]
    return next((mask for mask, of in pair_masks(pictures, photo.parent).items() if photo in of), None)
