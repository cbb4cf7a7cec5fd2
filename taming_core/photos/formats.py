"""Photo formats that Pillow alone does not read: registering its plugins, and the advice where one is missing."""

from importlib import import_module

from PIL import features

from taming_core.drop_reasons import ADVICE, AVIF, CAMERA_RAW, HEIC, JPEG_XL, NOT_AN_IMAGE, with_details

PLUGINS = {HEIC: "pillow_heif", JPEG_XL: "pillow_jxl"}  # the optional dependencies `heif` and `jxl`
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}  # ISO/IEC 23008-12, annex B
AVIF_BRANDS = {b"avif", b"avis"}
JPEG_XL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")  # codestream and container, ISO/IEC 18181-2
RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
# Most are TIFF files whose first image is a thumbnail, which Pillow would take for the photo.
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip


def missing_decoder(data: bytes, suffix: str) -> str | None:
    """The drop reason of a photo whose format cannot be read here; None if it can, its plugin being registered.

    Args:
        data: the file.
        suffix: of its name, with the dot; camera raw files that are TIFF are known by it.
    """
    kind = kind_of(data, suffix)
    return None if kind is None or _is_readable(kind) else with_details(kind, ADVICE.get(kind, "video"))


def kind_of(data: bytes, suffix: str) -> str | None:
    """The drop reason that stands for the format of a file; None for those that Pillow itself knows.

    >>> kind_of(b"....ftypheic....", ".jpg"), kind_of(b"MM..", ".NEF"), kind_of(b"\\xff\\xd8\\xff", ".nef")
    ('HEIC photo', 'camera raw photo', None)
    """
    if data[4:8] == b"ftyp":
        return _kind_of_brands(data)
    if data.startswith(JPEG_XL_STARTS):
        return JPEG_XL
    is_tiff = data.startswith((b"II", b"MM"))
    if data.startswith(RAW_STARTS) or (is_tiff and (data[8:10] == b"CR" or suffix.lower() in RAW_SUFFIXES)):
        return CAMERA_RAW
    return None


def _kind_of_brands(data: bytes) -> str:
    """The format of an ISO base media file, by its major and compatible brands (ISO/IEC 14496-12, section 4.3)."""
    box = data[8 : min(int.from_bytes(data[:4], "big"), 512)] or data[8:12]
    brands = {box[i : i + 4] for i in range(0, len(box), 4)}
    if data[8:12] == b"crx ":
        return CAMERA_RAW
    if data[8:12] in HEIC_BRANDS or (brands & HEIC_BRANDS and not brands & AVIF_BRANDS):
        return HEIC
    return AVIF if brands & AVIF_BRANDS else NOT_AN_IMAGE


def _is_readable(kind: str) -> bool:
    """Whether Pillow reads the format, after its plugin is registered if there is one."""
    if kind not in PLUGINS:
        return kind == AVIF and bool(features.check("avif"))
    try:
        plugin = import_module(PLUGINS[kind])  # pillow_jxl registers itself when it is imported
    except ImportError:
        return False
    if kind == HEIC:
        plugin.register_heif_opener(thumbnails=False)
    return True
