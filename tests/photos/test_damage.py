"""A photo whose pixels are sound is never lost to what stands around them."""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from taming_core.photos.decode import PhotoError, read_photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo() -> Image.Image:
    y, x = np.mgrid[0:96, 0:128]
    return Image.fromarray(np.dstack([x * 2, y * 2, 255 - x]).astype(np.uint8))


def with_metadata(kind: str) -> bytes:
    """A photo with EXIF, colour profile, resolution, XMP and comments, as far as the format has them."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x0128], exif[0x010F] = 1, 300.0, 2, "Camera"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    options: dict[str, object] = {"exif": exif, "icc_profile": PROFILE}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "words " * 20, zip=True)
        text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>" * 5)
        options |= {"pnginfo": text, "dpi": (300, 300)}
    elif kind == "WEBP":
        options |= {"xmp": b"<x:xmpmeta/>" * 5, "lossless": True}
    elif kind != "TIFF":
        options |= {"dpi": (300, 300), "comment": b"words", "xmp": b"<x:xmpmeta/>"}
    if kind == "MPO":
        options |= {"save_all": True, "append_images": [photo()]}
    buffer = io.BytesIO()
    photo().save(buffer, kind, **options)
    return buffer.getvalue()


def metadata_places(data: bytes, kind: str) -> list[int]:
    """Where the bytes inside metadata are: not those that say how long it is."""
    return [i for start, end in METADATA[kind](data) for i in range(start, end)]


def png_places(data: bytes) -> Iterator[tuple[int, int]]:
    start = 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"IHDR", b"IDAT", b"IEND"):
            yield start + 8, end  # with the checksum
        start = end


def jpeg_places(data: bytes) -> Iterator[tuple[int, int]]:
    start = 2
    while data[start + 1] != 0xDA:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if 0xE0 <= data[start + 1] <= 0xEF or data[start + 1] == 0xFE:
            yield start + 4, end
        start = end


def webp_places(data: bytes) -> Iterator[tuple[int, int]]:
    start = 12
    while start < len(data):
        length = int.from_bytes(data[start + 4 : start + 8], "little")
        if data[start : start + 4] in (b"EXIF", b"ICCP", b"XMP "):
            yield start + 8, start + 8 + length
        start += 8 + length + length % 2


METADATA = {"PNG": png_places, "JPEG": jpeg_places, "MPO": jpeg_places, "WEBP": webp_places}


def read_bytes(folder: Path, data: bytes) -> np.ndarray:
    (folder / "photo").write_bytes(data)
    return read_photo(folder / "photo").image


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", METADATA)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(draw=st.data())
def test_random_bytes_in_metadata_cost_no_photo(tmp_path, kind, draw):
    data = bytearray(with_metadata(kind))
    places = metadata_places(bytes(data), kind)
    start = draw.draw(st.sampled_from(places))
    for i, value in enumerate(draw.draw(st.binary(min_size=1, max_size=40))):
        if start + i in places:
            data[start + i] = value
    # Turned, if the damage made another orientation; in other colours, if it made another profile.
    assert read_bytes(tmp_path, bytes(data)).shape in ((96, 128, 3), (128, 96, 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"\xff" * 50, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_broken_exif(tmp_path, kind, exif):
    buffer = io.BytesIO()
    photo().save(
        buffer, kind, **({} if kind == "TIFF" else {"exif": exif}), **({"lossless": True} if kind == "WEBP" else {})
    )
    found = read_bytes(tmp_path, buffer.getvalue())
    assert np.abs(found - np.asarray(photo()).astype(int)).max() < (40 if kind == "JPEG" else 1)


def chunk(name: bytes, body: bytes, checksum: bool = True) -> bytes:
    crc = zlib.crc32(name + body) if checksum else 0
    return len(body).to_bytes(4, "big") + name + body + crc.to_bytes(4, "big")


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"pHYs", b"\0" * 9, checksum=False),
        chunk(b"pHYs", b"\0\0"),
        chunk(b"iCCP", b"x" * 30),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 70_000_000)),
        chunk(b"gAMA", b""),
        chunk(b"cHRM", b"\1"),
        chunk(b"tIME", b"", checksum=False),
    ],
)
def test_broken_chunks_of_a_png(tmp_path, extra):
    buffer = io.BytesIO()
    photo().save(buffer, "PNG")
    data = buffer.getvalue()
    assert np.array_equal(read_bytes(tmp_path, data[:33] + extra + data[33:]), np.asarray(photo()))
    assert np.array_equal(read_bytes(tmp_path, data[:-12] + extra + data[-12:]), np.asarray(photo()))


def test_the_orientation_survives_damage_elsewhere(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo().save(buffer, "PNG", exif=exif)
    data = buffer.getvalue()
    damaged = data[:33] + chunk(b"pHYs", b"\0" * 9, checksum=False) + data[33:]
    assert read_bytes(tmp_path, damaged).shape == (128, 96, 3)


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    photo().save(buffer, kind, **options)
    return buffer.getvalue()


SOUND = {"JPEG": 2, "progressive": 2, "PNG": 20, "GIF": 2, "interlaced": 2}


@pytest.mark.parametrize("kind", SOUND)
def test_a_missing_end_marker_costs_nothing(tmp_path, kind):
    data = {
        "JPEG": lambda: encoded("JPEG", quality=90),
        "progressive": lambda: encoded("JPEG", progressive=True),
        "PNG": lambda: encoded("PNG"),
        "GIF": lambda: encoded("GIF", interlace=0),
        "interlaced": lambda: encoded("GIF", interlace=1),
    }[kind]()
    whole = read_bytes(tmp_path, data)
    for cut in range(1, SOUND[kind] + 1):
        assert np.array_equal(read_bytes(tmp_path, data[:-cut]), whole)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_a_few_last_bytes_cost_a_row_of_blocks_and_half_a_file_the_photo(tmp_path, kind):
    data = encoded(kind)
    whole = read_bytes(tmp_path, data)
    found = read_bytes(tmp_path, data[:-30])
    upper = slice(17, None) if kind == "BMP" else slice(0, -17)  # BMP files begin with the last row
    assert np.array_equal(found[upper], whole[upper])
    for share in (0.5, 0.7):
        with pytest.raises(PhotoError, match=r"^unreadable: "):
            read_bytes(tmp_path, data[: int(len(data) * share)])


def test_a_webp_that_ends_within_its_metadata_is_whole(tmp_path):
    data = with_metadata("WEBP")
    assert np.array_equal(read_bytes(tmp_path, data[: data.index(b"XMP ") + 20]), np.asarray(photo()))


def test_cmyk_as_adobe_stores_it(tmp_path):
    red = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    buffer = io.BytesIO()
    red.save(buffer, "JPEG", quality=95)
    assert b"Adobe" in buffer.getvalue()
    pixel = read_bytes(tmp_path, buffer.getvalue())[30, 30]
    assert pixel[0] > 245
    assert pixel[1:].max() < 10
