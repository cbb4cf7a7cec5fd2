"""generation.json: names of pictures that nothing else has, and a record that loses nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from taming_core import generation
from taming_core.errors import TamingError
from taming_core.images import records
from taming_core.images.requests import DrawSettings
from taming_core.params.load import load_params, packaged_params

SETTINGS = DrawSettings(load_params(packaged_params()).generate.sampling)
NAMES = st.text("ab樱😀 .-<>", min_size=1, max_size=4) | st.text("xy", min_size=100, max_size=200) | st.just("CON")


def subject(colour: str) -> list[Image.Image]:
    return [Image.new("RGBA", (4, 4), colour)]


def entries(
    requested: list[generation.RequestedImage], settings: DrawSettings = SETTINGS, encoder: str = "mini"
) -> list[dict[str, Any]]:
    """Records of images whose objects are all different."""
    subjects = [subject(f"#0000{i:02x}") for i in range(1 + max(max(w.request.objects) for w in requested))]
    return generation.records(requested, subjects, settings, {"folder": encoder, "fingerprint": encoder}, {}, "fp32")


def write(out: Path, requested: list[generation.RequestedImage], made: list[dict[str, Any]]) -> list[str]:
    """Pictures and their record, as a run writes them."""
    out.mkdir(exist_ok=True)
    files = records.file_names([w.readable_name for w in requested], made, out)
    for file, entry in zip(files, made, strict=True):
        (out / file).write_text(json.dumps(entry))
        records.add_record(file, entry, out)
    return files


def requests(objects: list[str], prompts: list[str], seed: int = 0) -> list[generation.RequestedImage]:
    return generation.requested_images([Path(o) for o in objects], [f"{p} <object>" for p in prompts], seed, 2)


@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=3), st.integers(0, 2**63 - 1))
def test_pictures_never_share_a_name_and_a_run_again_has_the_same(
    tmp_path_factory: pytest.TempPathFactory, objects: list[str], prompts: list[str], seed: int
) -> None:
    out = tmp_path_factory.mktemp("out")
    requested = requests([f"{o}.jpg" for o in objects], prompts, seed)
    made = entries(requested)
    first = write(out, requested, made)
    assert len({name.lower() for name in first}) == len({records.made_by(entry) for entry in made})
    assert all(name.isascii() and len(name) <= 100 for name in first)
    assert write(out, requested, made) == first
    more = entries(requested, DrawSettings(SETTINGS.sampling, "blurry"))
    second = write(out, requested, more)
    assert not set(first) & set(second)
    assert write(out, requested, more) == second
    record = json.loads((out / "generation.json").read_text())
    assert all((out / name).read_text() == json.dumps(entry) for name, entry in record.items())
    assert record == dict(zip([*first, *second], [*made, *more], strict=True))


def test_a_short_request_has_a_readable_name(tmp_path: Path) -> None:
    (requested, _) = requests(["Robot 1.jpg"], ["a photo of a"])
    assert write(tmp_path, [requested], entries([requested])) == ["robot-1-a-photo-of-a-object-0.png"]


def test_the_place_of_an_encoder_makes_no_other_picture(tmp_path: Path) -> None:
    (requested, _) = requests(["a.jpg"], ["a"])
    made = entries([requested])[0]
    moved = {**made, "objects": ["b/a.jpg"], "encoder": {**made["encoder"], "folder": "elsewhere"}}
    assert write(tmp_path, [requested], [made]) == write(tmp_path, [requested], [moved])


def test_another_encoder_or_photo_makes_another_picture(tmp_path: Path) -> None:
    (requested, _) = requests(["a.jpg"], ["a"])
    made = entries([requested])[0]
    others = [{**made, "subjects": ["0" * 16]}, {**made, "encoder": {"folder": "mini", "fingerprint": "new"}}]
    assert len({write(tmp_path, [requested], [entry])[0] for entry in (made, *others)}) == 3


def test_a_file_without_a_record_is_not_replaced(tmp_path: Path) -> None:
    (requested, _) = requests(["a.jpg"], ["a"])
    (tmp_path / "A-a-object-0.PNG").write_text("a photo")  # the same name for Windows and macOS
    (name,) = write(tmp_path, [requested], entries([requested]))
    assert name.lower() != "a-a-object-0.png"
    assert (tmp_path / "A-a-object-0.PNG").read_text() == "a photo"


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1}', ""])
def test_a_foreign_record_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation.json").write_text(content)
    with pytest.raises(TamingError, match=r"generation.json is no record .* Name another --out"):
        records.read_records(tmp_path)


def test_a_foreign_sheet_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_text("a photo")
    with pytest.raises(TamingError, match=r"sheet.png is of something else"):
        records.require_out(tmp_path, [])
    records.add_record("a.png", {}, tmp_path)
    records.require_out(tmp_path, [])
    with pytest.raises(TamingError, match=r"sheet.png is an input"):
        records.require_out(tmp_path, [tmp_path / "sheet.png"])


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(TamingError, match=r"is a file\. Name a folder"):
            records.require_out(out, [])
    records.require_out(tmp_path / "new" / "folder", [])


def test_images_do_not_become_photos_of_the_object(tmp_path: Path) -> None:
    (tmp_path / "robot").mkdir()
    for out in (tmp_path / "robot", tmp_path / "robot" / "out", tmp_path / "robot" / ".." / "robot"):
        with pytest.raises(TamingError, match="in a folder of photos of the object"):
            records.require_out(out, [tmp_path / "robot"])
    records.require_out(tmp_path, [tmp_path / "robot"])
