"""Folders as people have them: captions, masks, notes, links and odd names beside photos."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from taming_core.errors import TamingError
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import file_name, find_copies, folder_state, photo_id_of, photo_path
from taming_core.photos.folder import list_photos, mask_beside, read_folder
from taming_core.photos.folder_notes import notes
from taming_core.photos.tree import file_size

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")
NOBODY = 65534


def put(folder: Path, *names: str) -> None:
    """Small pictures, each of another colour."""
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (n, 200, 9)).save(folder / name, "PNG")


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def names(folder: Path) -> list[str]:
    return [file_name(path, folder) for path in list_photos(folder)]


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """A folder that nobody may look into; root becomes another user meanwhile, since it may do anything."""
    folder.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_pictures_are_photos_whatever_they_are_called_and_the_rest_is_named(tmp_path):
    put(tmp_path, "notice.jpg", "License.png", "README.JPG", "metadata.png", "a.jpeg", "without-ending")
    for name in ("README.md", "LICENSE", "b/clip.mp4", "odd.caption", "notes.txt", ".DS_Store"):
        write(tmp_path / name, "x")
    put(tmp_path, ".ipynb_checkpoints/a-checkpoint.jpg")
    write(tmp_path / "._a.jpeg", "x")
    assert names(tmp_path) == ["License.png", "README.JPG", "a.jpeg", "metadata.png", "notice.jpg", "without-ending"]
    assert notes(read_folder(tmp_path)) == [
        "text files not used: notes.txt, odd.caption",
        "not photos: LICENSE, README.md, b/clip.mp4",
        "hidden photos left out: .ipynb_checkpoints/a-checkpoint.jpg",
    ]


def test_of_many_other_files_the_first_are_named_and_the_others_counted(tmp_path):
    put(tmp_path, "0.jpg")
    for n in range(12):
        write(tmp_path / f"{n:02}.{'json' if n < 10 else 'yaml'}", "{}")
    first = ", ".join(f"{n:02}.json" for n in range(8))
    assert notes(read_folder(tmp_path)) == [f"not photos: {first} and 4 more (2 .json, 2 .yaml)"]


def test_a_folder_of_photos_alone_needs_no_word(tmp_path):
    put(tmp_path, "toy/0.jpg", "1.png")
    assert notes(read_folder(tmp_path)) == []


def test_an_empty_or_absent_folder_is_an_error(tmp_path):
    write(tmp_path / "README.md", "x")
    with pytest.raises(TamingError, match="holds no photos"):
        list_photos(tmp_path)
    with pytest.raises(TamingError, match="is not a folder"):
        list_photos(tmp_path / "absent")


def test_links_end_and_each_file_is_there_once(tmp_path):
    raw = tmp_path / "raw"
    put(raw, "thing/0.jpg", ".store/9f.png")
    put(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    for link, target in {
        "thing/up": "..", "thing/up2": "..", "above": "../..", "thing/self": "self", "again.jpg": "thing/0.jpg",
        "linked": "../elsewhere", "linked-again": "../elsewhere/deep", "one.jpg": "../elsewhere/1.jpg",
        "kept.png": ".store/9f.png", "dangling.jpg": "nowhere.jpg", "dangling": "nowhere",
    }.items():  # fmt: skip
        (raw / link).symlink_to(target)
    (tmp_path / "elsewhere/back").symlink_to(raw)
    assert names(raw) == ["dangling.jpg", "kept.png", "linked/1.jpg", "linked/deep/2.jpg", "thing/0.jpg"]
    assert notes(read_folder(raw)) == [
        "not photos: dangling, thing/self",
        "links to what is listed already: above, again.jpg, linked/back, linked-again, one.jpg, thing/up, thing/up2",
    ]
    with pytest.raises(PhotoError, match=r"^unreadable: No such file or directory$"):
        read_photo(raw / "dangling.jpg")
    assert folder_state(raw) == folder_state(raw)


def test_what_cannot_be_read_is_a_photo_with_a_reason():
    with TemporaryDirectory() as name:  # not below pytest's folder, which only its owner may enter
        root = Path(name)
        root.chmod(0o755)
        put(root, "0.jpg", "locked/1.jpg")
        with without_rights(root / "locked"):
            folder = read_folder(root)
            assert [file_name(path, root) for path in folder.photos] == ["0.jpg", "locked"]
            with pytest.raises(PhotoError, match=r"^unreadable: Permission denied$"):
                read_photo(folder.photos[1])
            assert find_copies({path: file_size(path) for path in (*folder.photos, root / "locked/1.jpg")}) == {}
            assert folder_state(root)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["pipe.jpg"]
    with pytest.raises(PhotoError, match=r"^unreadable: Not a regular file$"):
        read_photo(tmp_path / "pipe.jpg")
    assert photo_id_of(tmp_path / "pipe.jpg") == photo_id_of(tmp_path / "absent")


def test_a_name_that_is_not_utf8_is_told_from_one_that_looks_alike(tmp_path):
    put(tmp_path, NOT_UTF8, "caf\\xe9.jpg", "café.jpg", "cafe\u0301.jpg")
    found = names(tmp_path)
    assert sorted(found) == sorted(["caf\\xe9.jpg", "caf\\x5cxe9.jpg", "café.jpg", "cafe\u0301.jpg"])
    assert [photo_path(tmp_path, name) for name in found] == list_photos(tmp_path)
    assert folder_state(tmp_path)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda b: not {0, 47} & set(b)), min_size=1, max_size=5))
def test_every_name_is_text_and_leads_back_to_its_file(parts):
    path = Path("raw", *(os.fsdecode(part) for part in parts if part not in (b".", b"..")))
    name = file_name(path, Path("raw"))
    assert name.encode().decode() == name
    assert photo_path(Path("raw"), name) == path


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.lists(
            st.binary(min_size=1, max_size=20).filter(lambda b: not {0, 47} & set(b) and not b.startswith(b".")),
            min_size=1, max_size=4,
        ), min_size=1, max_size=8,
    )
)  # fmt: skip
def test_photos_with_any_names_in_any_folders_are_all_found(tmp_path_factory, paths):
    folder = tmp_path_factory.mktemp("raw")
    made = {folder.joinpath(*map(os.fsdecode, path[:-1]), os.fsdecode(path[-1]) + ".jpg") for path in paths}
    made = {path for path in made if not any(other in path.parents for other in made)}
    for path in made:
        write(path, "x")
    masks = {folder / mask for mask in read_folder(folder).masks}
    assert set(list_photos(folder)) | masks == made
    assert len({file_name(path, folder) for path in made}) == len(made)


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        ("two cherries", "two cherries"),
        (b"\xef\xbb\xbftwo cherries\r\n", "two cherries"),
        ("樱桃".encode("utf-16"), "樱桃"),
        (b"caf\xe9 \x93au lait\x94", "café “au lait”"),
        ("cherries,\r\non a table\r\n\r\n", "cherries, on a table"),
        ("one\u2028line", "one\u2028line"),
        (" \n", None),
        (b"\0\1\2", None),
    ],
)
def test_the_caption_in_the_text_file_beside_a_photo(tmp_path, content, caption):
    put(tmp_path, "0.jpg")
    write(tmp_path / "0.txt", content)
    assert read_folder(tmp_path).metadata["0.jpg"].caption == caption


def test_captions_beside_photos_and_what_is_said_of_them(tmp_path):
    put(tmp_path, "a/0.jpg", "a/1.png", "a/1.webp", "2.jpg", "3.jpg", "4.jpg", "5.jpg")
    for name, text in {
        "a/0.TXT": "zero", "a/1.txt": "one", "a/0.caption": "unused", "2.jpg.txt": "two", "3.txt": "a\nb", "4.txt": "",
        "5.txt": b"\xe9", "6.txt": "no photo",
    }.items():  # fmt: skip
        write(tmp_path / name, text)
    folder = read_folder(tmp_path)
    captions = {name: row.caption for name, row in folder.metadata.items()}
    assert captions == {
        "a/0.jpg": "zero", "a/1.png": "one", "a/1.webp": "one", "2.jpg": "two", "3.jpg": "a b", "4.jpg": None,
        "5.jpg": "é",
    }  # fmt: skip
    assert notes(folder) == [
        f"{tmp_path}: 6 captions beside photos",
        "captions of several lines, joined: 3.txt",
        "captions read as Latin-1: 5.txt",
        "captions without words: 4.txt",
        "text files not used: 6.txt, a/0.caption",
    ]


def test_the_boxes_of_a_detection_data_set_are_no_caption(tmp_path):
    put(tmp_path, "0.jpg", "IMG_1.JPG", "2.jpg")
    write(tmp_path / "0.txt", "0 0.51 0.43 0.2 0.3\n1 0.1 0.2 0.3 1e-2\n")
    write(tmp_path / "img_1.txt", "a robot")
    write(tmp_path / "2.txt", "🤖")
    folder = read_folder(tmp_path)
    assert [folder.metadata[name].caption for name in ("0.jpg", "IMG_1.JPG", "2.jpg")] == [None, "a robot", "🤖"]
    assert notes(folder) == [f"{tmp_path}: 2 captions beside photos", "captions without words: 0.txt"]


def test_a_caption_belongs_to_a_photo_whose_accents_a_mac_took_apart(tmp_path):
    put(tmp_path, "cafe\u0301.jpg")
    write(tmp_path / "caf\xe9.txt", "a table")
    assert read_folder(tmp_path).metadata["cafe\u0301.jpg"].caption == "a table"


def test_folders_that_systems_write_are_left_out(tmp_path):
    put(tmp_path, "0.jpg", "@eaDir/0.jpg/SYNOPHOTO_THUMB_XL.jpg", "__MACOSX/._0.jpg")
    assert names(tmp_path) == ["0.jpg"]
    assert notes(read_folder(tmp_path)) == ["hidden photos left out: @eaDir/0.jpg/SYNOPHOTO_THUMB_XL.jpg"]


def test_a_caption_of_the_metadata_is_preferred_and_this_is_said(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg")
    write(tmp_path / "0.txt", "beside")
    write(tmp_path / "1.txt", "beside too")
    write(tmp_path / "metadata.jsonl", '{"file_name": "0.jpg", "caption": "given"}')
    folder = read_folder(tmp_path)
    assert [folder.metadata[name].caption for name in ("0.jpg", "1.jpg")] == ["given", "beside too"]
    assert notes(folder) == [
        f"{tmp_path}: metadata.jsonl, 2 captions beside photos",
        "captions not used, since metadata has others: 0.txt",
    ]


@pytest.mark.parametrize(
    "mask",
    [
        "toy/0-masklabel.png", "toy/0_mask.png", "toy/0-mask.jpg", "toy/0.mask.png", "toy/masks/0.png",
        "toy/Masks/0_mask.png", "masks/toy/0.png", "mask/toy/0.jpg", "toy/0_MASK.PNG", "toy/mask_0.png",
        "toy/0_mask_1.png", "toy/0.jpg.mask.png", "masks/toy/0.jpg.png", "toy_masks/0_mask.png", "gt/Toy/0.png",
    ],
)  # fmt: skip
def test_a_mask_beside_a_photo_is_no_photo(tmp_path, mask):
    put(tmp_path, "toy/0.jpg", mask)
    folder = read_folder(tmp_path)
    assert names(tmp_path) == ["toy/0.jpg"]
    assert folder.metadata["toy/0.jpg"].mask == tmp_path / mask
    assert notes(folder) == [f"{tmp_path}: 1 mask given"]


def test_masks_in_place_of_a_folder_of_images(tmp_path):
    put(tmp_path, "train/images/0.jpg", "train/masks/0.png", "train/masks/1.png")
    folder = read_folder(tmp_path)
    assert folder.metadata["train/images/0.jpg"].mask == tmp_path / "train/masks/0.png"
    assert list(folder.metadata) == ["train/images/0.jpg"]
    assert "masks not used: train/masks/1.png" in notes(folder)


def test_masks_are_found_in_another_case_unless_there_is_a_photo_of_their_own(tmp_path):
    put(tmp_path, "A.JPG", "a_mask.png", "B.jpg", "b.jpg", "b-mask.png")
    folder = read_folder(tmp_path)
    found = {name: row.mask and row.mask.name for name, row in folder.metadata.items()}
    assert found == {"A.JPG": "a_mask.png", "B.jpg": None, "b.jpg": "b-mask.png"}


def test_pictures_that_are_called_like_masks_are_named_if_they_are_photos(tmp_path):
    put(tmp_path, "dog/img.jpg", "dog/masks/0_1.png", "JPEGImages/0.jpg", "SegmentationClass/0.png", "damask/0.jpg")
    assert notes(read_folder(tmp_path)) == [
        "photos, although they are called like masks: SegmentationClass/0.png, dog/masks/0_1.png"
    ]
    put(tmp_path, "dog/img_mask_1.png", "dog/img_mask_2.png")
    assert notes(read_folder(tmp_path))[:2] == [f"{tmp_path}: 1 mask given", "masks not used: dog/img_mask_2.png"]


def test_photos_of_masks_are_photos(tmp_path):
    put(tmp_path, "masks/0.jpg", "masks/1.jpg", "venetian_mask.jpg", "robot/0.png")
    assert names(tmp_path) == ["masks/0.jpg", "masks/1.jpg", "robot/0.png", "venetian_mask.jpg"]


def test_a_mask_that_metadata_names_and_one_without_its_photo(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg", "cut/a.png", "9-masklabel.png", "1-condlabel.png")
    write(tmp_path / "metadata.csv", "file_name,mask\n0.jpg,cut/a.png\n")
    folder = read_folder(tmp_path)
    assert {name: row.mask for name, row in folder.metadata.items()} == {
        "0.jpg": tmp_path / "cut/a.png",
        "1.jpg": None,
    }
    assert notes(folder)[1:] == ["masks not used: 9-masklabel.png", "not photos: 1-condlabel.png"]


def test_the_mask_of_one_photo_of_a_folder(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg", "0-masklabel.png", "masks/1.png", "2[a].jpg", "2[a]_mask.png")
    masks = [mask_beside(tmp_path / name) for name in ("0.jpg", "1.jpg", "2[a].jpg", "masks/1.png")]
    assert masks == [tmp_path / name for name in ("0-masklabel.png", "masks/1.png", "2[a]_mask.png")] + [None]


def caption_of(folder: Path, name: str, metadata: str | bytes) -> str | None:
    put(folder, "thing/0.jpg", "thing/1.jpg")
    write(folder / name, metadata)
    return read_folder(folder).metadata["thing/0.jpg"].caption


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("metadata.jsonl", b'\xef\xbb\xbf{"file_name": "thing/0.jpg", "caption": "a caf\xc3\xa9"}\r\n'),
        ("Metadata.JSONL", '{"image": "thing/0.jpg", "text": "a café"}'),
        ("metadata.jsonl", '{"File_Name": "thing/../thing/0.jpg", "Prompt": "a café"}'),
        ("metadata.jsonl", '{"path": "thing\\\\0.jpg", "text": "a café", "caption": null}'),
        ("metadata.jsonl", '{"file": "./thing/0.jpg", "caption": "a café"}\n{"file": "thing/1.jpg", "text": "b"}'),
        ("thing/metadata.csv", "file_name;caption\r\n0.jpg;a café\r\n1.jpg;\r\n"),
        ("metadata.csv", b"sep=;\r\nfile_name;caption\r\nthing/0.jpg;a caf\xe9\r\n"),
        ("METADATA.CSV", "file_name,caption\nthing/0.jpg, a café\n".encode("utf-16")),
        ("metadata.tsv", "file_name\tcaption\nthing/0.jpg\ta café\n"),
        ("metadata.tsv", "file_name\tcaption\tby, on, at\nthing/0.jpg\ta café\tme\n"),
        ("metadata.csv", "image_file_name,caption\nthing/0.jpg,a café\n"),
    ],
)  # fmt: skip
def test_metadata_as_programs_write_it(tmp_path, name, metadata):
    assert caption_of(tmp_path, name, metadata) == "a café"


def test_a_caption_may_hold_signs_that_end_lines_elsewhere(tmp_path):
    rows = '{"file_name": "thing/0.jpg", "caption": "cherries\u2028on\x85a table \\ud83d"}\n\n'
    assert caption_of(tmp_path, "metadata.jsonl", rows) == "cherries\u2028on\x85a table ?"


def test_metadata_by_absolute_names(tmp_path):
    put(tmp_path, "thing/0.jpg")
    row = '{"file_name": "%s", "caption": "cherries"}' % (tmp_path / "thing/0.jpg")
    assert caption_of(tmp_path, "metadata.jsonl", row) == "cherries"
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "/absolute/thing/0.jpg", "caption": "x"}')
    with pytest.raises(TamingError, match=r"names /absolute/thing/0.jpg, which is not below .* relative to"):
        read_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "../0.jpg", "caption": "x"}')
    with pytest.raises(TamingError, match=r"names \.\./0.jpg, which is not below"):
        read_folder(tmp_path)


def test_metadata_names_a_photo_in_another_spelling_of_its_accents(tmp_path):
    name = "cafe\u0301.jpg"
    put(tmp_path, name, NOT_UTF8)
    composed = unicodedata.normalize("NFC", name)
    write(
        tmp_path / "metadata.jsonl",
        f'{{"file_name": "{composed}", "text": "a"}}\n{{"file_name": "caf\\udce9.jpg", "text": "b"}}',
    )
    assert {n: row.caption for n, row in read_folder(tmp_path).metadata.items()} == {name: "a", "caf\\xe9.jpg": "b"}


def test_columns_that_are_not_used_are_named_once(tmp_path):
    put(tmp_path, "0.jpg", "1.jpg")
    rows = [f'{{"file_name": "{n}.jpg", "caption": "c", "text": "t", "licence": "x", "empty": null}}' for n in (0, 1)]
    write(tmp_path / "metadata.jsonl", "\n".join(rows))
    assert notes(read_folder(tmp_path))[1:] == [f"{tmp_path / 'metadata.jsonl'}: columns not used: licence, text"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file_name,caption\n0.jpg,red, round cherries\n", "row 1 has more cells than the header"),
        ('file_name,caption\n0.jpg,"' + "x" * 200_000 + '"\n', "cannot be read: field larger"),
        ("file_name,caption\n0.jpg\0,x\n", "cannot be read"),
        ('file_name,caption\n0.jpg,x\n1.jpg,"red\n2.jpg,blue\n', "unexpected end of data after row 1; quotes"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_line(tmp_path, text, complaint):
    put(tmp_path, "0.jpg")
    write(tmp_path / "metadata.csv", text)
    with pytest.raises(TamingError, match=complaint):
        read_folder(tmp_path)


def test_the_line_of_damaged_json_is_told(tmp_path):
    put(tmp_path, "0.jpg")
    write(tmp_path / "metadata.jsonl", '{"file_name": "0.jpg"}\n\n{"file_name" "1.jpg"}\n')
    with pytest.raises(TamingError, match="line 3, Expecting ':' delimiter, column 14"):
        read_folder(tmp_path)


def test_split_folders_and_splits_in_words_of_their_own(tmp_path):
    put(tmp_path, "Train/robot/0.jpg", "val/canoe/0.jpg", "test/0.jpg", "robot/train/0.jpg")
    write(tmp_path / "metadata.csv", "file_name,split\ntest/0.jpg,Valid\n")
    folder = read_folder(tmp_path)
    assert {name: row.split for name, row in folder.metadata.items()} == {
        "Train/robot/0.jpg": "train", "val/canoe/0.jpg": "validation", "test/0.jpg": "validation",
        "robot/train/0.jpg": None,
    }  # fmt: skip
    assert notes(folder) == [
        f"{tmp_path}: metadata.csv, splits by the folders Train, test, val",
        "folders called like splits below others, no splits: robot/train",
    ]
