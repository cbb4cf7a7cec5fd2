"""Folders of photos in object stores are read as their local copies are."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import ObjectStore, upload
from PIL import Image
from upath import UPath

from taming_core.drop_reasons import UNREADABLE
from taming_core.errors import TamingError
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import file_name, find_copies, folder_state, photo_id_of, photo_path
from taming_core.photos.folder import PhotoFolder, list_photos, mask_beside, read_folder
from taming_core.photos.folder_notes import notes
from taming_core.photos.metadata import PhotoMetadata
from taming_core.storage import reading
from taming_core.storage.paths import AnyPath

ODD = ("a b.jpg", "a%20b.jpg", "a+b.jpg", "a#1?x=2&y.jpg", "café.jpg", "cafe\u0301.jpg", "樱桃/1.jpg", "[*]/{a}.jpg",
       "back\\slash.jpg", "caf\\xe9.jpg", "~.jpg", "'\".jpg", "s3:.jpg")  # fmt: skip


def put(folder: Path, *names: str) -> None:
    """Small pictures, each of another colour."""
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (n, 200, 9)).save(folder / name, "PNG")


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def relative(row: PhotoMetadata, root: AnyPath) -> PhotoMetadata:
    return replace(row, mask=None if row.mask is None else Path(file_name(row.mask, root)))


def described(folder: PhotoFolder) -> object:
    """All that was read of a folder, wherever it is."""
    said = [note.replace(str(folder.root), "ROOT") for note in notes(folder)]
    return said, {name: relative(row, folder.root) for name, row in folder.metadata.items()}, folder.benchmarks


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> Callable[[Path], UPath]:
    """A function that uploads a folder."""
    if request.param == "s3":
        bucket: UPath = request.getfixturevalue("bucket")
        return lambda folder: upload(folder, bucket / "photos" / folder.name)
    return lambda folder: upload(folder, UPath("memory://" + folder.as_posix().strip("/").replace("/", "-")))


def with_metadata(raw: Path) -> None:
    put(raw, "robot/0.jpg", "robot/1.jpg", "canoe/0.jpg", "canoe/mask of 0.png", "train/x.jpg", "README", "._a.jpg")
    write(raw / "metadata.csv", "file_name,identity,class,caption,mask,other\n"
          "robot/0.jpg,r,robot,a robot,,1\n./canoe/../canoe/0.jpg,c,,,canoe/mask of 0.png,2\n")  # fmt: skip
    write(raw / "robot/metadata.jsonl", '{"file_name": "1.jpg", "text": "another robot", "split": "test"}\n')
    pq.write_table(pa.table({"image": ["x.jpg"], "caption": ["a train"]}), raw / "train/metadata.parquet")
    write(raw / "notes.md", "not a photo")


def with_captions_and_masks(raw: Path) -> None:
    put(raw, *(f"{n}.jpg" for n in range(6)), "masks/0.png", "1_mask.png", "2-masklabel.png", ".hidden/3.jpg")
    texts = {
        "0.txt": "two cherries", "1.caption": "a cat\nasleep", "2.txt": b"caf\xe9", "3.txt": b"\0\0",
        "4.txt": "0.1 0.2", "9.txt": "of no photo", "movie.mp4": "x", "empty.bin": "",
    }  # fmt: skip
    for name, text in texts.items():
        write(raw / name, text)


def as_benchmarks(raw: Path) -> None:
    put(raw, "dreambooth/dog/00.jpg", "dreambooth/dog/01.jpg", "dreambooth/vase/00.jpg")
    write(raw / "dreambooth/prompts_and_classes.txt", "subject_name,class\ndog,dog\nvase,vase\n\nPrompts\na {0}\n")
    for category in ("object", "style", "live_subject/animal"):
        put(raw, f"plus/images/{category}/00.jpg")
        write(raw / f"plus/captions/{category}/00.txt", "toy\na toy in the sea\na toy at night\n")


@pytest.mark.parametrize("make", [with_metadata, with_captions_and_masks, as_benchmarks])
def test_a_folder_is_the_same_in_a_store(
    make: Callable[[Path], None], store: Callable[[Path], UPath], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    make(raw)
    stored = store(raw)
    here, there = read_folder(raw), read_folder(stored)
    assert described(there) == described(here)
    assert [size for size in there.sizes.values()] == [size for size in here.sizes.values()]
    assert [photo_id_of(path) for path in there.photos] == [photo_id_of(path) for path in here.photos]


def test_odd_names_lead_back_to_their_photos(store: Callable[[Path], UPath], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    put(raw, *ODD)
    stored = store(raw)
    here, there = read_folder(raw), read_folder(stored)
    assert list(there.metadata) == list(here.metadata)
    assert len(there.metadata) == len(ODD) == len({unicodedata.normalize("NFD", name) for name in ODD}) + 1
    for name, path in zip(there.metadata, there.photos, strict=True):
        assert (photo_path(stored, name), file_name(path, stored)) == (path, name)
        assert np.array_equal(read_photo(path).image, read_photo(photo_path(raw, name)).image)


def test_copies_are_found_and_a_changed_photo_changes_the_state(store: Callable[[Path], UPath], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    put(raw, "0.jpg", "1.jpg")
    write(raw / "copy.jpg", (raw / "0.jpg").read_bytes())
    stored = store(raw)
    assert find_copies(read_folder(stored).sizes) == {stored / "copy.jpg": stored / "0.jpg"}
    before = folder_state(stored)
    assert folder_state(stored) == before
    (stored / "copy.jpg").write_bytes((raw / "1.jpg").read_bytes())
    assert folder_state(stored) != before


def test_the_mask_beside_one_photo_is_found(store: Callable[[Path], UPath], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    put(raw, "0.jpg", "0_mask.png", "1.jpg", "Masks/1.png", "2.jpg", "deeper/2_mask.png", "notes")
    stored = store(raw)
    masks = [mask_beside(stored / name) for name in ("0.jpg", "1.jpg", "2.jpg")]
    assert masks == [stored / "0_mask.png", stored / "Masks/1.png", None]


def test_a_store_is_listed_by_few_requests_and_only_small_texts_are_read(
    bucket: UPath, object_store: ObjectStore, tmp_path: Path
) -> None:
    put(tmp_path / "raw", *(f"toy/{n}.jpg" for n in range(20)))
    write(tmp_path / "raw/toy/0.txt", "a toy")
    stored = upload(tmp_path / "raw", bucket / "raw")
    object_store.fail()
    folder = read_folder(stored)
    assert sum(folder.sizes.values()) > 0
    requests = object_store.requests()
    assert [r for r in requests if not r.endswith("/raw/toy/0.txt")] == [requests[0]]
    assert "list-type=2" in requests[0]
    object_store.fail()
    read_photo(folder.photos[0])
    assert object_store.requests() == [f"GET /{stored.path}/toy/0.jpg"]


def test_folders_made_in_a_console_are_no_files(bucket: UPath, tmp_path: Path) -> None:
    put(tmp_path / "raw", "toy/0.jpg")
    stored = upload(tmp_path / "raw", bucket / "raw")
    for name in ("raw/", "raw/toy/", "raw/empty/"):
        bucket.fs.call_s3("put_object", Bucket=bucket.path.strip("/"), Key=name, Body=b"")
    assert list(read_folder(stored).metadata) == ["toy/0.jpg"]
    assert notes(read_folder(stored)) == []


def test_what_is_not_there_is_an_error(store: Callable[[Path], UPath], tmp_path: Path) -> None:
    write(tmp_path / "raw/README.md", "x")
    stored = store(tmp_path / "raw")
    with pytest.raises(TamingError, match=r"holds no photos\. Put"):
        list_photos(stored)
    with pytest.raises(TamingError, match=r"There is nothing at .*absent\. Check"):
        list_photos(stored.parent / "absent")


def test_a_bucket_that_is_not_there_is_an_error(bucket: UPath) -> None:
    with pytest.raises(TamingError, match=r"s3://no-such-bucket/photos cannot be found: .*\. Check the URL"):
        list_photos(UPath("s3://no-such-bucket/photos"))


def test_a_metadata_row_may_name_a_url_but_nothing_outside(bucket: UPath, tmp_path: Path) -> None:
    put(tmp_path / "raw", "0.jpg")
    stored = upload(tmp_path / "raw", bucket / "raw")
    for name, wrong in ((f"{stored}/0.jpg", None), ("0.jpg", None), ("../0.jpg", "is not below"),
                        ("s3://other/raw/0.jpg", "is not below"), ("1.jpg", "does not exist")):  # fmt: skip
        (stored / "metadata.csv").write_bytes(f"file_name,identity\n{name},a\n".encode())
        if wrong is None:
            assert read_folder(stored).metadata["0.jpg"].identity == "a"
        else:
            with pytest.raises(TamingError, match=wrong):
                read_folder(stored)


@pytest.fixture
def photo(bucket: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UPath:
    monkeypatch.setattr(reading, "WAITS", (0.0, 0.0))
    put(tmp_path / "raw", "0.jpg", "1.jpg")
    return upload(tmp_path / "raw", bucket / "raw") / "0.jpg"


def test_a_photo_is_read_again_when_the_store_fails_for_a_while(photo: UPath, object_store: ObjectStore) -> None:
    expected = read_photo(photo).image
    for faults in ({"refused": 3}, {"cut": 3}, {"refused": 6}):
        object_store.fail(match="/raw/0.jpg", **faults)
        assert np.array_equal(read_photo(photo).image, expected)
        assert len(object_store.requests()) > sum(faults.values())


def test_a_photo_that_alone_cannot_be_read_gets_the_cause_as_its_reason(
    photo: UPath, object_store: ObjectStore
) -> None:
    object_store.fail(cut=10**9, match="/raw/0.jpg")
    with pytest.raises(PhotoError, match=f"^{UNREADABLE}: .*(ontent|onnection)"):
        read_photo(photo)
    assert read_photo(photo.with_name("1.jpg"))
    object_store.fail()
    photo.unlink()
    with pytest.raises(PhotoError, match=f"^{UNREADABLE}: "):
        read_photo(photo)
    assert photo_id_of(photo) == photo_id_of(Path("absent"))


def test_a_store_that_is_gone_ends_the_stage_and_loses_no_photo(photo: UPath, object_store: ObjectStore) -> None:
    object_store.fail(cut=10**9)
    with pytest.raises(TamingError, match=r"cannot be reached: .*\. Check network, .*finished work is kept"):
        read_photo(photo)
