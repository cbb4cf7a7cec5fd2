"""The tab Try draws what `taming generate` draws."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_rows import artwork, composed

from stages.generate import generate
from taming_core import generation
from taming_core.errors import TamingError
from taming_core.images import records
from taming_core.images.requests import DrawSettings
from taming_core.params.load import load_params, packaged_params
from taming_core.studio import drawing
from taming_core.studio.drawing import Arrangement, Model, Reference, Wanted
from taming_core.studio.places import IMAGES, OBJECTS

BEACH = "a photo of a <object> on the beach"
FEW = generation.override_sampling(load_params(packaged_params()).generate.sampling, steps=2, batch_size=1)
MINI = Model("mini", device="cpu")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Photos of two objects in an empty project, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / "robot.png", tmp_path / "other.png"]
    for number, file in enumerate(files):
        Image.fromarray(composed(artwork(2)[number], number)[0]).save(file)
    return files


def wanted(
    photos: list[Path], arrangement: Arrangement = "an image each", prompt: str = BEACH, images: int = 1
) -> Wanted:
    references = tuple(map(Reference, photos))
    return Wanted(references, arrangement, (prompt,), 3, images, MINI, DrawSettings(FEW))


def draw(request: Wanted, steps: list[int] | None = None, stop_after: int = 10**6) -> list[str]:
    """The files drawn; `steps` receives the completed sampling steps, and drawing stops after so many of them."""
    counted = [] if steps is None else steps

    def on_step(step: int) -> bool:
        counted.append(step)
        return len(counted) >= stop_after

    return [drawn.file for drawn in drawing.draw(request, on_step)]


def as_drawn(folder: Path) -> dict[str, Any]:
    """The options of the command with which it draws as `wanted` does."""
    text = packaged_params().read_text()
    params = folder / "few.yaml"
    params.write_text(text.replace("guidance_text: 3.5, batch_size: 8}", "guidance_text: 3.5, batch_size: 1}"))
    return {"steps": 2, "encoder": "mini", "device": "cpu", "params": params}


def test_images_and_records_are_those_of_the_command(photos: list[Path], tmp_path: Path) -> None:
    files = draw(wanted(photos, images=2))
    assert len(files) == 4
    generate(photos, [BEACH], tmp_path / "out/cli", seed=3, images=2, **as_drawn(tmp_path))
    assert records.read_records(IMAGES) == records.read_records(tmp_path / "out/cli")
    for file in files:
        assert (IMAGES / file).read_bytes() == (tmp_path / "out/cli" / file).read_bytes()


def test_an_image_says_what_it_was_made_with_and_not_where_its_photo_lies(photos: list[Path]) -> None:
    (file,) = draw(wanted(photos[:1]))
    with Image.open(IMAGES / file) as image:
        made = json.loads(image.text["taming"])  # type: ignore[attr-defined]
    assert (made["prompt"], made["seed"], made["sampling"]["steps"], made["objects"]) == (BEACH, 3, 2, None)
    assert made == json.loads(records.made_by(records.read_records(IMAGES)[file]))


def test_stopping_keeps_complete_images_and_writes_no_other(photos: list[Path]) -> None:
    steps = list[int]()
    files = draw(wanted(photos[:1], images=3), steps, stop_after=3)
    assert steps == [1, 2, 1]
    assert len(files) == 1
    assert list(records.read_records(IMAGES)) == files == [path.name for path in IMAGES.glob("*.png")]
    assert len(draw(wanted(photos[:1], images=3))) == 3  # the pipeline draws again


def test_several_photos_are_one_object_or_several(photos: list[Path]) -> None:
    (file,) = draw(wanted(photos, "one object"))
    entry = records.read_records(IMAGES)[file]
    (folder,) = entry["objects"]
    assert Path(folder).is_relative_to(OBJECTS)
    assert [path.name for path in generation.photos_of(Path(folder))] == ["000-robot.png", "001-other.png"]
    (both,) = draw(wanted(photos, "one image", "a <object> beside a <object>"))
    assert records.read_records(IMAGES)[both]["objects"] == [str(photo) for photo in photos]


def test_an_object_is_encoded_once_whatever_its_file_is_called(photos: list[Path], tmp_path: Path) -> None:
    drawing.load.cache_clear()
    draw(wanted(photos[:1]))
    (copy := tmp_path / "copy.png").write_bytes(photos[0].read_bytes())
    draw(wanted([copy]))
    loaded = drawing.load(MINI, *drawing.files_of(MINI))
    assert len(loaded.embeds) == 1
    draw(wanted(photos[1:]))
    assert len(loaded.embeds) == 2


def test_a_given_mask_decides_what_is_cut_out(photos: list[Path], tmp_path: Path) -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:40, :40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found, given = (
        drawing.subject_image(Reference(photos[0], file), "removed", "cpu") for file in (None, tmp_path / "mask.png")
    )
    assert np.any(np.asarray(found) != np.asarray(given))
    corner = np.asarray(Image.open(photos[0]))[:40, :40]
    opaque = np.asarray(given)[..., 3] > 250
    assert np.abs(np.asarray(given)[opaque][:, :3].mean(0) - corner.reshape(-1, 3).mean(0)).max() < 8


def square_mask(file: Path) -> Path:
    """A mask of a part of the photo."""
    mask = np.zeros((128, 128), np.bool_)
    mask[30:90, 40:70] = True
    Image.fromarray(mask).save(file)
    return file


def test_a_corrected_cut_out_is_drawn_and_recorded_as_by_the_command(photos: list[Path], tmp_path: Path) -> None:
    drawing.load.cache_clear()
    draw(wanted(photos[:1]))
    reference = Reference(photos[0], square_mask(tmp_path / "mask.png"))
    (file,) = draw(replace(wanted(photos[:1]), references=(reference,)))
    found, corrected = drawing.load(MINI, *drawing.files_of(MINI)).embeds.values()
    assert not torch.equal(found, corrected)
    cli = tmp_path / "out/cli"
    generate(photos[:1], [BEACH], cli, [tmp_path / "mask.png"], seed=3, **as_drawn(tmp_path))
    (entry,) = records.read_records(cli).values()
    assert records.read_records(IMAGES)[file] == entry
    assert (IMAGES / file).read_bytes() == next(cli.glob("robot*.png")).read_bytes()


def test_a_folder_of_photos_holds_their_masks(photos: list[Path], tmp_path: Path) -> None:
    masked = Reference(photos[1], square_mask(tmp_path / "mask.png"))
    folder, plain = (drawing.photo_folder([Reference(photos[0]), second]) for second in (masked, Reference(photos[1])))
    assert folder != plain
    copies = generation.photos_of(folder)
    assert [path.name for path in copies] == ["000-robot.png", "001-other.png"]
    subjects = [drawing.subject_image(r, "removed", "cpu") for r in (Reference(photos[0]), masked)]
    assert [drawing.subject_image(Reference(copy), "removed", "cpu") for copy in copies] == subjects


@pytest.mark.parametrize(
    ("prompt", "arrangement", "count", "message"),
    [
        ("a photo on the beach", "an image each", 1, "does not say where the object goes"),
        (BEACH, "one image", 2, "has no <object> for"),
        (BEACH, "an image each", 0, "There is no photo. Drop one"),
    ],
)
def test_errors_are_those_of_the_command(
    photos: list[Path], prompt: str, arrangement: Arrangement, count: int, message: str
) -> None:
    with pytest.raises(TamingError, match=message):
        draw(wanted(photos[:count], arrangement, prompt))
    assert not IMAGES.exists()


def test_a_photo_that_cannot_be_used_has_a_reason(photos: list[Path], tmp_path: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    found = drawing.subjects_or_reasons([Reference(photos[0]), Reference(broken)], MINI)
    assert isinstance(found[0], Image.Image)
    assert found[1] == "broken.png is not a readable image: not an image. Name another file."
