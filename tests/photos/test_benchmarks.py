"""The folders of DreamBench and DreamBench++, as they are downloaded and as they are after mistakes."""

from pathlib import Path

import pytest
from PIL import Image

from taming_core.drop_reasons import STYLE_PICTURE
from taming_core.photos.folder import PhotoFolder, read_folder
from taming_core.photos.folder_notes import notes

CLASSES = """Classes

subject_name,class
backpack,backpack
cat2,cat
bear_plushie,stuffed animal

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a {0} {1} on the beach'.format(unique_token, class_token)
]
"""
KITTEN = ["kitten", "a photo of a kitten on a sofa", "a kitten in the snow", "a watercolor of a kitten"]


def put(folder: Path, *names: str) -> None:
    """Small pictures, each of another colour."""
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (n, 200, 9)).save(folder / name, "PNG")


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def dreambench(folder: Path, classes: str | bytes = CLASSES) -> PhotoFolder:
    put(
        folder,
        "dataset/backpack/00.jpg",
        "dataset/backpack/01.jpg",
        "dataset/cat2/00.jpg",
        "dataset/bear_plushie/0.jpg",
    )
    write(folder / "dataset/prompts_and_classes.txt", classes)
    write(folder / "dataset/references_and_licenses.txt", "backpack: a link")
    return read_folder(folder)


def dreambench_plus(folder: Path) -> PhotoFolder:
    put(folder, "images/live_subject/animal/00.jpg", "images/live_subject/human/00.jpg", "images/object/00.jpg",
        "images/object/01.jpg", "images/style/00.jpg")  # fmt: skip
    captions = {"live_subject/animal": KITTEN, "live_subject/human": ["Man", "A man"], "style": ["Ukiyo-e", "A wave"]}
    for category, lines in captions.items():
        write(folder / "captions" / category / "00.txt", "\n".join(lines))
        write(folder / "captions_zh" / category / "00.txt", "小猫")
    write(folder / "captions/object/00.txt", "Roll of film\n\nA roll of film on a desk\n")
    write(folder / "captions/object/01.txt", "T-shirt\nA T-shirt\n")
    return read_folder(folder)


def known(folder: PhotoFolder) -> dict[str, tuple[str | None, str | None, str | None]]:
    """Identity, class and split of each photo."""
    return {name: (row.identity, row.noun, row.split) for name, row in folder.metadata.items()}


def test_the_dataset_of_dreambooth_has_its_subjects_with_their_classes_in_the_split_test(tmp_path: Path):
    folder = dreambench(tmp_path)
    assert known(folder) == {
        "dataset/backpack/00.jpg": ("backpack", "backpack", "test"),
        "dataset/backpack/01.jpg": ("backpack", "backpack", "test"),
        "dataset/bear_plushie/0.jpg": ("bear_plushie", "stuffed animal", "test"),
        "dataset/cat2/00.jpg": ("cat2", "cat", "test"),
    }
    assert notes(folder) == [f"{tmp_path}: DreamBench layout, 3 subjects in the split test"]


def test_its_lists_may_have_the_line_ends_and_the_mark_of_windows(tmp_path: Path):
    windows = CLASSES.replace("\n", "\r\n").encode("utf-8-sig")
    assert known(dreambench(tmp_path / "a", windows)) == known(dreambench(tmp_path / "b"))


def test_the_folder_itself_may_be_the_dataset(tmp_path: Path):
    dreambench(tmp_path)
    found = read_folder(tmp_path / "dataset")
    assert known(found)["cat2/00.jpg"] == ("cat2", "cat", "test")


def test_a_subject_that_the_list_lacks_or_has_without_a_class_is_said(tmp_path: Path):
    dreambench(tmp_path, CLASSES.replace("cat2,cat", "cat2,"))
    put(tmp_path, "dataset/my_dog/00.jpg")
    folder = read_folder(tmp_path)
    assert known(folder)["dataset/my_dog/00.jpg"] == ("my_dog", None, "test")
    assert notes(folder) == [
        f"{tmp_path}: DreamBench layout, 4 subjects in the split test",
        "subjects of DreamBench without a class: cat2, my_dog",
    ]


def test_beside_other_photos_a_subject_is_named_with_its_folder(tmp_path: Path):
    dreambench(tmp_path)
    put(tmp_path, "cat2/0.jpg", "train/dogs/rex/0.jpg")
    found = known(read_folder(tmp_path))
    assert found["dataset/cat2/00.jpg"] == ("dataset/cat2", "cat", "test")
    assert found["cat2/0.jpg"] == (None, None, None)
    assert found["train/dogs/rex/0.jpg"] == (None, None, "train")


def test_metadata_goes_before_the_benchmark(tmp_path: Path):
    dreambench(tmp_path)
    write(tmp_path / "metadata.csv", "file_name,class,identity\ndataset/cat2/00.jpg,kitten,tom\n")
    assert known(read_folder(tmp_path))["dataset/cat2/00.jpg"] == ("tom", "kitten", "test")


def test_a_list_without_classes_is_a_text_like_any_other(tmp_path: Path):
    folder = dreambench(tmp_path, "Classes\n")
    assert known(folder)["dataset/cat2/00.jpg"] == (None, None, None)
    assert notes(folder) == [
        "text files not used: dataset/prompts_and_classes.txt, dataset/references_and_licenses.txt"
    ]


def test_archives_of_macos_add_nothing(tmp_path: Path):
    dreambench(tmp_path)
    write(tmp_path / "__MACOSX/dataset/cat2/._00.jpg", "x")
    write(tmp_path / "__MACOSX/dataset/._prompts_and_classes.txt", "x")
    write(tmp_path / "dataset/._prompts_and_classes.txt", "x")
    assert notes(read_folder(tmp_path)) == [f"{tmp_path}: DreamBench layout, 3 subjects in the split test"]


def test_each_picture_of_dreambench_plus_is_a_subject_with_the_class_of_its_captions(tmp_path: Path):
    folder = dreambench_plus(tmp_path)
    assert known(folder) == {
        "images/live_subject/animal/00.jpg": ("live_subject_animal_00_kitten", "kitten", "test"),
        "images/live_subject/human/00.jpg": ("live_subject_human_00_man", "Man", "test"),
        "images/object/00.jpg": ("object_00_roll_of_film", "Roll of film", "test"),
        "images/object/01.jpg": ("object_01_t-shirt", "T-shirt", "test"),
        "images/style/00.jpg": ("style_00_ukiyo-e", "Ukiyo-e", "test"),
    }
    assert notes(folder) == [f"{tmp_path}: DreamBench++ layout, 4 subjects in the split test"]


def test_its_prompts_are_those_of_the_captions_after_the_class(tmp_path: Path):
    (benchmark,) = dreambench_plus(tmp_path).benchmarks
    assert benchmark.prompts["live_subject_animal_00_kitten"] == tuple(KITTEN[1:])
    assert benchmark.prompts["object_00_roll_of_film"] == ("A roll of film on a desk",)
    assert not [identity for identity in benchmark.prompts if identity.startswith("style")]


def test_pictures_of_styles_are_left_out_with_a_reason(tmp_path: Path):
    folder = dreambench_plus(tmp_path)
    assert [n for n, row in folder.metadata.items() if row.left_out == STYLE_PICTURE] == ["images/style/00.jpg"]


@pytest.mark.parametrize("wrapped", ["", "data/"])
def test_a_missing_captions_file_is_said(tmp_path: Path, wrapped: str):
    dreambench_plus(tmp_path / wrapped)
    (tmp_path / wrapped / "captions/object/00.txt").unlink()
    write(tmp_path / wrapped / "captions/object/01.txt", b"\0\0")
    folder = read_folder(tmp_path)
    assert known(folder)[f"{wrapped}images/object/00.jpg"] == ("object_00", None, "test")
    assert notes(folder) == [
        f"{tmp_path}: DreamBench++ layout, 4 subjects in the split test",
        "subjects of DreamBench++ without a class: object_00, object_01",
    ]


def test_folders_of_images_and_captions_of_another_make_are_no_benchmark(tmp_path: Path):
    put(tmp_path, "images/object/00.jpg", "images/style/00.jpg", "images/robot/00.jpg")
    write(tmp_path / "captions/object/00.txt", "a robot on a table")
    write(tmp_path / "captions/robot/00.txt", "a robot\non a table")
    folder = read_folder(tmp_path)
    assert not folder.benchmarks
    assert {row.split for row in folder.metadata.values()} == {None}
