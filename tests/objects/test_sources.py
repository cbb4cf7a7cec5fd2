"""Identity, class and split of photos by their folders."""

from pathlib import Path

import pytest
from coloured_photos import put

from taming_core.errors import TamingError
from taming_core.objects.sources import PhotoSource, class_notes, list_sources
from taming_core.photos.folder import read_folder
from taming_core.photos.folder_notes import notes


def sources(folder: Path, *names: str, identity: str = "folder") -> dict[str, PhotoSource]:
    for n, name in enumerate(names):
        put(folder / name, ball=(10, 10, 50, 50 + n))
    return {source.file_name: source for source in list_sources(read_folder(folder), identity)}  # pyright: ignore


def test_photos_below_folders_of_splits_have_the_identities_of_the_folders_below(tmp_path):
    found = sources(tmp_path, "train/robot/0.png", "train/canoe/0.png", "test/cherries/0.png", "val/1.png")
    assert {name: (s.identity, s.metadata.split) for name, s in found.items()} == {
        "train/robot/0.png": ("robot", "train"),
        "train/canoe/0.png": ("canoe", "train"),
        "test/cherries/0.png": ("cherries", "test"),
        "val/1.png": (None, "validation"),
    }


def test_of_nested_folders_the_whole_path_is_the_identity(tmp_path):
    found = sources(tmp_path, "dogs/1/0.png", "cats/1/0.png", "things/rex/0.png", "things/fido/0.png", "a/b/c/0.png")
    assert {(s.identity, s.metadata.noun) for s in found.values()} == {
        ("dogs/1", "dog"), ("cats/1", "cat"), ("things/rex", None), ("things/fido", None), ("a/b/c", None),
    }  # fmt: skip
    found = sources(tmp_path, identity="top_folder")
    assert {(s.identity, s.metadata.noun) for s in found.values()} == {
        ("dogs", None), ("cats", None), ("things", None), ("a", None),
    }  # fmt: skip


def test_splits_may_be_in_the_folder_of_an_archive(tmp_path):
    found = sources(tmp_path, "data/train/robot/0.png", "data/test/dogs/rex/0.png")
    assert [(s.identity, s.metadata.split, s.metadata.noun) for s in found.values()] == [
        ("dogs/rex", "test", "dog"), ("robot", "train", None),
    ]  # fmt: skip
    assert notes(read_folder(tmp_path)) == [f"{tmp_path}: splits by the folders test, train"]
    sources(tmp_path, "canoe/0.png")
    assert notes(read_folder(tmp_path)) == ["folders called like splits below others, no splits: data/test, data/train"]


def test_classes_that_folders_give_are_said(tmp_path):
    sources(tmp_path, "dogs/rex/0.png", "Camera/fido/0.png", "robot/0.png")
    folder = read_folder(tmp_path)
    assert class_notes(folder, "folder") == ["classes by folders: camera (Camera), dog (dogs)"]
    assert class_notes(folder, "top_folder") == []


def test_a_split_of_another_name_is_said_before_the_work(tmp_path):
    put(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text("file_name,split\n0.png,holdout\n")
    with pytest.raises(TamingError, match=r"metadata.csv names a split 'holdout'. Use train, validation, test, or"):
        read_folder(tmp_path)


def test_a_column_that_is_there_twice_is_an_error(tmp_path):
    put(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text("file_name,caption,Caption\n0.png,one,two\n")
    with pytest.raises(TamingError, match="it has the column caption twice"):
        read_folder(tmp_path)


def test_metadata_goes_before_folders(tmp_path):
    put(tmp_path / "dogs/rex/0.png")
    row = "file_name,identity,class,split\ndogs/rex/0.png,Rex,terrier,test\n"
    (tmp_path / "metadata.csv").write_text(row)
    (found,) = sources(tmp_path).values()
    assert (found.identity, found.metadata.noun, found.metadata.split) == ("Rex", "terrier", "test")


def test_one_identity_in_two_splits_is_said_before_the_work(tmp_path):
    with pytest.raises(TamingError, match=r"photos of 'robot' into test and train\. Give all photos .* to photo"):
        sources(tmp_path, "train/robot/0.png", "test/robot/1.png")
    assert {s.identity for s in sources(tmp_path, identity="photo").values()} == {None}
