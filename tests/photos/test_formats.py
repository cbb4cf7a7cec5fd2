"""Photos as cameras and phones store them today: HEIC, AVIF, JPEG XL, camera raw, hundreds of megapixels."""

import io
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from taming_core.drop_reasons import ADVICE, AVIF, CAMERA_RAW, HEIC, JPEG_XL
from taming_core.params.sections import MAX_PIXELS
from taming_core.photos import decode, formats
from taming_core.photos.decode import WORKING_SIDE, PhotoError, read_photo
from taming_core.tables.drop_counts import print_counts

HEIC_FILE = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 32
RAW_FILES = {
    "a.CR2": b"II*\0\x10\0\0\0CR\x02\0",
    "a.tif": b"II*\0\x10\0\0\0CR\x02\0",
    "a.NEF": b"MM\0*\0\0\0\x08",
    "a.dng": b"II*\0\x08\0\0\0",
    "a.cr3": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    "a.raf": b"FUJIFILMCCD-RAW 0201",
    "a.orf": b"IIRO\x08\0\0\0",
    "a.rw2": b"IIU\0\x08\0\0\0",
}


def stripes(width: int, height: int) -> Image.Image:
    """Smooth colours, so that scaling hardly changes them."""
    x, y = np.linspace(0, 255, width, dtype=np.uint8), np.linspace(0, 255, height, dtype=np.uint8)
    across, down = np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))
    return Image.fromarray(np.dstack([across, down, 255 - across]))


def cells(image: Image.Image) -> np.ndarray:
    """The mean colours of 10 x 4 cells: dithering does not show in them."""
    return np.asarray(image.resize((10, 4), Image.Resampling.BOX)).astype(int)


def reason_of_file(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    return str(caught.value)


def test_a_missing_decoder_is_named_with_what_to_install(tmp_path, monkeypatch):
    for module in formats.PLUGINS.values():
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.setattr(formats.features, "check", lambda _feature: False)
    files = {HEIC: HEIC_FILE, JPEG_XL: b"\xff\x0a\0\0", AVIF: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"}
    for kind, data in files.items():
        assert reason_of_file(tmp_path / "photo.jpg", data) == f"{kind}: {ADVICE[kind]}"
    assert reason_of_file(tmp_path / "a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n....") == f"{JPEG_XL}: {ADVICE[JPEG_XL]}"


@pytest.mark.parametrize("name", RAW_FILES)
def test_camera_raw_is_to_be_converted_and_its_thumbnail_is_no_photo(tmp_path, name):
    assert reason_of_file(tmp_path / name, RAW_FILES[name]) == f"{CAMERA_RAW}: convert it to JPEG, PNG or TIFF"


def test_a_photo_is_known_by_its_content_not_by_its_name(tmp_path):
    stripes(64, 48).save(tmp_path / "photo.jpg")
    for name in ("photo.heic", "photo.nef", "photo"):
        (tmp_path / name).write_bytes((tmp_path / "photo.jpg").read_bytes())
        assert read_photo(tmp_path / name).image.shape == (48, 64, 3)


def test_what_to_do_is_said_once_for_all_photos(capsys):
    print_counts({"kept": 3, HEIC: 12, "too many pixels": 1}, "objects.parquet: 16 photos")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "12 HEIC photos: pip install 'taming[heif]'",
        "1 too many pixels: raise detect.max_pixels",
    ]


@pytest.mark.parametrize(("module", "name"), [("pillow_heif", "a.heic"), ("PIL", "a.avif")])
def test_formats_of_phones_are_read_upright(tmp_path, module, name):
    plugin = pytest.importorskip(module)
    if module == "pillow_heif":
        plugin.register_heif_opener()
    stripes(96, 64).save(tmp_path / name, quality=95, exif=turned().tobytes())
    assert_upright(tmp_path / name)


def test_a_jpeg_inside_jpeg_xl_is_turned_by_its_exif_and_another_by_its_decoder(tmp_path):
    pytest.importorskip("pillow_jxl")
    stripes(96, 64).save(tmp_path / "a.jpg", quality=95, exif=turned())
    with Image.open(tmp_path / "a.jpg") as jpeg:
        jpeg.save(tmp_path / "a.jxl", lossless_jpeg=True)
    assert_upright(tmp_path / "a.jxl")
    stripes(96, 64).save(tmp_path / "b.jxl", quality=95, exif=turned().tobytes())
    assert read_photo(tmp_path / "b.jxl").image.shape == (64, 96, 3)


def turned() -> Image.Exif:
    """The EXIF of a camera that was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def assert_upright(path: Path) -> None:
    found = read_photo(path)
    assert (found.width, found.height) == (64, 96)
    upright = np.asarray(stripes(96, 64).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(found.image - upright).mean() < 4


def test_a_photo_of_200_megapixels_is_read_and_a_bomb_is_not(tmp_path):
    Image.new("L", (20_000, 10_000), 77).save(tmp_path / "large.png")
    found = read_photo(tmp_path / "large.png", max_pixels=250_000_000)
    assert (found.image.shape, found.width, found.height) == ((1024, 2048, 3), 20_000, 10_000)
    assert (found.image == 77).all()
    with pytest.raises(PhotoError, match=r"^too many pixels: 20000x10000, over detect.max_pixels$"):
        read_photo(tmp_path / "large.png", max_pixels=199_999_999)
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own limit holds for everything else in the process
    assert MAX_PIXELS < 60_000 * 60_000


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.webp", "a.tif", "p.gif", "l.png", "rgba.png", "one.png", "i.png"]
)
def test_a_large_photo_of_any_mode_is_scaled_down_and_keeps_its_colours(tmp_path, name):
    kinds = {"p.gif": "P", "l.png": "L", "rgba.png": "RGBA", "one.png": "1"}
    photo = stripes(3000, 1200).convert("L" if name == "i.png" else kinds.get(name, "RGB"))
    stored = Image.fromarray(np.asarray(photo).astype(np.uint16) * 257) if name == "i.png" else photo
    stored.save(tmp_path / name)
    found = read_photo(tmp_path / name)
    assert (found.image.shape, found.width, found.height) == ((819, WORKING_SIDE, 3), 3000, 1200)
    assert np.abs(cells(Image.fromarray(found.image)) - cells(photo.convert("RGB"))).max() < (
        25 if photo.mode == "1" else 4
    )


def test_up_to_the_working_size_no_pixel_is_touched(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, WORKING_SIDE, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert np.array_equal(read_photo(tmp_path / "a.png").image, noise)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_large_photo_has_the_pixels_that_are_asked_for(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stripes(4000, 3000).save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole = read_photo(tmp_path / "a.jpg", side_of=lambda width, height: max(width, height))
    part = read_photo(tmp_path / "a.jpg", side_of=lambda _width, _height: 500, box=(400, 800, 1400, 1400))
    assert (part.width, part.height) == (whole.width, whole.height)
    assert part.image.shape == (300, 500, 3)
    expected = Image.fromarray(whole.image).crop((400, 800, 1400, 1400)).resize((500, 300), Image.Resampling.BOX)
    assert np.abs(part.image - np.asarray(expected).astype(int)).mean() < 3


def test_memory_for_a_jpeg_does_not_grow_with_its_pixels(tmp_path, monkeypatch):
    """What the decoder fills: 54 megapixels as 162 MB are never in memory, neither in Pillow nor in numpy."""
    stripes(9000, 6000).save(tmp_path / "a.jpg", quality=80)
    sizes = []
    prepare = ImageFile.ImageFile.load_prepare
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", lambda i: (sizes.append(i.size), prepare(i))[1])
    tracemalloc.start()
    image = read_photo(tmp_path / "a.jpg").image
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.shape == (1365, 2048, 3)
    assert sizes == [(2250, 1500)]
    assert peak < 60e6


def test_large_files_are_decoded_one_after_the_other(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (4096, 2560)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    running, most = [], []
    load = decode._loaded

    def counted(*inputs):
        running.append(1)
        most.append(len(running))
        image = load(*inputs)
        running.pop()
        return image

    monkeypatch.setattr(decode, "_loaded", counted)
    threads = [threading.Thread(target=read_photo, args=(tmp_path / "a.png",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
