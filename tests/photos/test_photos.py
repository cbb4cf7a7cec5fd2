"""Reading photos as cameras, phones and the web store them: orientation, modes, damage, metadata, hashes."""

import io
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from taming_core.errors import TamingError
from taming_core.fingerprints import hash_of
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import find_copies, folder_state, photo_id_of
from taming_core.photos.folder import read_folder
from taming_core.photos.metadata import PhotoMetadata
from taming_core.photos.tree import file_size
from taming_core.photos.view_hash import difference_hash, hamming


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.dstack([x * 5, y * 7, 255 - x * 4]).astype(np.uint8))


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.webp"])
def test_lossless_formats_give_the_pixels_that_were_saved(tmp_path, name):
    found = read_photo(saved(tmp_path, gradient(), name, **({"lossless": True} if name == "a.webp" else {})))
    assert found.image.dtype == np.uint8
    assert np.array_equal(found.image, np.asarray(gradient()))
    assert found.photo_id == hash_of((tmp_path / name).read_bytes()) == photo_id_of(tmp_path / name)


LYING = {  # EXIF orientation -> what a camera that is held so stores of an upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", LYING)
def test_exif_orientation_is_undone(tmp_path, orientation):
    lying = LYING[orientation](np.asarray(gradient()))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(lying))
    assert np.array_equal(read_photo(saved(tmp_path, stored, "a.png", exif=exif)).image, np.asarray(gradient()))


def test_grayscale_palette_and_one_bit(tmp_path):
    gray = gradient().convert("L")
    assert np.array_equal(read_photo(saved(tmp_path, gray, "l.png")).image, np.asarray(gray.convert("RGB")))
    palette = gradient().quantize(16)
    assert np.array_equal(read_photo(saved(tmp_path, palette, "p.png")).image, np.asarray(palette.convert("RGB")))
    assert set(np.unique(read_photo(saved(tmp_path, gradient().convert("1"), "1.png")).image)) == {0, 255}


def test_transparent_pixels_become_mid_grey(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    image.putpixel((0, 0), (0, 255, 0, 0))
    image.putpixel((1, 0), (255, 255, 255, 128))
    found = read_photo(saved(tmp_path, image, "a.png")).image
    assert found[0, :3].tolist() == [[128, 128, 128], [192, 192, 192], [255, 0, 0]]


def test_a_transparent_palette_colour_becomes_mid_grey(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((0, 0), 0)
    found = read_photo(saved(tmp_path, image, "a.gif", transparency=0)).image
    assert found[0, :2].tolist() == [[128, 128, 128], [200, 100, 0]]


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert read_photo(saved(tmp_path, image, "a.tiff")).image[0, 0].tolist() == [255, 0, 0]
    red = read_photo(saved(tmp_path, image, "a.jpg", quality=95)).image[0, 0]
    assert red[0] > 245
    assert red[1:].max() < 10


def test_a_colour_profile_is_applied_and_a_broken_one_does_no_harm(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    swapped = swapped_profile()
    plain = Image.new("RGB", (8, 8), (250, 30, 60))
    assert read_photo(saved(tmp_path, plain, "swap.png", icc_profile=swapped)).image[0, 0].tolist() == [30, 250, 60]
    for number, profile in enumerate([b"no profile at all", lab]):
        found = read_photo(saved(tmp_path, plain, f"{number}.png", icc_profile=profile)).image
        assert found[0, 0].tolist() == [250, 30, 60]


def swapped_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    at = {bytes(data[i : i + 4]): i + 4 for i in range(132, 132 + 12 * count, 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16).repeat(4, axis=0)
    for name in ("a.png", "a.tiff"):
        found = read_photo(saved(tmp_path, Image.fromarray(values), name)).image
        assert found[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floating_point_pixels_are_refused_with_the_reason(tmp_path):
    image = Image.fromarray(np.ones((4, 4), np.float32))
    with pytest.raises(PhotoError, match=r"^unreadable: pixels of kind F$"):
        read_photo(saved(tmp_path, image, "a.tiff"))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_of_an_animation_the_first_frame(tmp_path, name):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if name == "a.webp" else {}
    found = read_photo(saved(tmp_path, first, name, save_all=True, append_images=[second], **options)).image
    assert found[0, 0].tolist() == [255, 0, 0]


def test_reasons_of_files_that_give_no_picture(tmp_path):
    whole = io.BytesIO()
    gradient(256, 256).save(whole, "JPEG")
    half = whole.getvalue()[: len(whole.getvalue()) // 2]
    files = {
        "empty file": b"",
        "not an image": b"dear diary",
        "not an image: video": b"\0\0\0\x18ftypmp42\0\0\0\0",
        "photo too small: 20x30": png_bytes(20, 30),
        "too many pixels: 200x300, over detect.max_pixels": png_bytes(200, 300),
    }
    for number, (reason, data) in enumerate(files.items()):
        (tmp_path / f"{number}.jpg").write_bytes(data)
        with pytest.raises(PhotoError) as caught:
            read_photo(tmp_path / f"{number}.jpg", min_side=24, max_pixels=59_999)
        assert str(caught.value) == reason
    (tmp_path / "half.jpg").write_bytes(half)
    with pytest.raises(PhotoError, match=r"^unreadable: image file is truncated"):
        read_photo(tmp_path / "half.jpg")


def png_bytes(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_decompression_bomb_is_not_opened(tmp_path):
    bomb = bytearray(png_bytes(10, 10))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bytes(bomb))
    with pytest.raises(PhotoError, match=r"^too many pixels: 60000x60000, over detect.max_pixels$"):
        read_photo(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_bytes_never_raise_anything_else(tmp_path):
    """Whatever a decoder raises becomes a reason, which is all that keeps one bad file from stopping a run."""
    generator = np.random.default_rng(0)
    outcomes = set()
    for kind in ("PNG", "GIF", "TIFF", "BMP", "PPM", "TGA", "AVIF", "DDS"):
        buffer = io.BytesIO()
        gradient().save(buffer, kind)
        for _ in range(25):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[generator.integers(0, min(len(data), 300), 6)] = generator.integers(0, 256, 6)
            (tmp_path / "x").write_bytes(data.tobytes())
            try:
                outcomes.add(read_photo(tmp_path / "x").image.ndim)
            except PhotoError as error:
                outcomes.add(str(error).split(":")[0])
    assert {3, "unreadable", "not an image"} <= outcomes


def test_files_of_the_same_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c", "d", "e")]
    for path, text in zip(paths, ["same", "other", "same", "", ""], strict=True):
        path.write_text(text)
    assert find_copies({path: file_size(path) for path in paths}) == {tmp_path / "c": tmp_path / "a"}


def test_folder_state_changes_with_a_file(tmp_path):
    (tmp_path / "a.jpg").write_text("1")
    before = folder_state(tmp_path)
    assert folder_state(tmp_path) == before
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    after = folder_state(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name\n")
    assert len({before, after, folder_state(tmp_path)}) == 3


def metadata_folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)
    return tmp_path


ROWS = [
    {"file_name": "a.jpg", "identity": "7", "class": "cat", "caption": "a cat", "split": "test", "license": "x"},
    {"file_name": "b.jpg", "identity": None},
]
GIVEN = {"a.jpg": PhotoMetadata("7", "cat", "a cat", "test"), "b.jpg": PhotoMetadata()}


def test_metadata_in_three_formats(tmp_path):
    folder = metadata_folder(tmp_path)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in ROWS) + "\n\n")
    assert read_folder(folder).metadata == GIVEN
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(
        "\ufefffile_name,identity,class,caption,split\na.jpg,7,cat,a cat,test\nb.jpg,,,,\n", encoding="utf-8"
    )
    assert read_folder(folder).metadata == GIVEN
    (folder / "metadata.csv").unlink()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "metadata.parquet")
    assert read_folder(folder).metadata == GIVEN


def test_metadata_of_a_sub_folder_speaks_of_its_own_files(tmp_path):
    (tmp_path / "pets").mkdir()
    (metadata_folder(tmp_path / "pets") / "metadata.jsonl").write_text('{"file_name": "./a.jpg", "class": "cat"}\n')
    assert read_folder(tmp_path).metadata == {"pets/a.jpg": PhotoMetadata(noun="cat"), "pets/b.jpg": PhotoMetadata()}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"file_name": "c.jpg"}', r"names c\.jpg, which does not exist"),
        ('{"file_name": "a.jpg"}\n{"file_name": "a.jpg"}', r"names a\.jpg a second time"),
        ('{"identity": "cat"}', "row 1, has no file_name"),
        ("file_name: a.jpg", "cannot be read"),
        ('["a.jpg"]', "lines that are not JSON objects"),
    ],
)
def test_wrong_metadata_is_an_error(tmp_path, text, complaint):
    (metadata_folder(tmp_path) / "metadata.jsonl").write_text(text)
    with pytest.raises(TamingError, match=complaint):
        read_folder(tmp_path)


def test_difference_hash_survives_scaling_and_tells_photos_apart():
    noise = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    photo = Image.fromarray(noise).resize((180, 160), Image.Resampling.BICUBIC)
    small, flipped = photo.resize((90, 80)), photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    same = hamming(difference_hash(np.asarray(photo)), difference_hash(np.asarray(small)))
    other = hamming(difference_hash(np.asarray(photo)), difference_hash(np.asarray(flipped)))
    assert same <= 2
    assert other >= 16
    assert 0 <= difference_hash(np.asarray(photo)) < 2**64
