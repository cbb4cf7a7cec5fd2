"""`taming generate`: a photo and a prompt to images and a record of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, composed

from stages.generate import generate
from taming_core import generation
from taming_core.errors import TamingError
from taming_core.objects import subjects
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import Sampling
from taming_core.photos.decode import read_photo
from taming_core.photos.masks import cutout

BEACH, SNOW = "a photo of a <object> on the beach", "a photo of a <object> in the snow"
PARAMS = load_params(packaged_params())


def photo(folder: Path, number: int = 0, name: str = "photo.png") -> tuple[Path, np.ndarray]:
    """A file with a thing on a scene, and the thing's mask."""
    image, mask = composed(artwork(3)[number], number)
    Image.fromarray(image).save(folder / name)
    return folder / name, mask


def no_finder() -> subjects.Finder:
    raise AssertionError("the detector is not needed")


def run(out: Path, photos: list[Path], prompts: list[str], **options: Any) -> dict[str, Any]:
    few = {"steps": 1, "encoder": "mini", "device": "cpu", "params": packaged_params()}
    generate(objects=photos, prompts=prompts, out=out, **{**few, **options})
    return json.loads((out / "generation.json").read_text())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two photos, one prompt, two images each; cut out by the detector and the segmenter."""
    folder = tmp_path_factory.mktemp("generate")
    photos = [photo(folder, 0, "Robot 1.png")[0], photo(folder, 1, "other.png")[0]]
    return folder / "out", run(folder / "out", photos, [BEACH], images=2, seed=3)


def test_every_object_is_drawn_with_every_prompt(drawn: tuple[Path, dict[str, Any]]) -> None:
    out, record = drawn
    names = [
        f"{thing}-a-photo-of-a-object-on-the-beach-{seed}.png" for thing in ("robot-1", "other") for seed in (3, 4)
    ]
    assert list(record) == names
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, "generation.json", "sheet.png"])
    assert {Image.open(out / name).size for name in names} == {(128, 128)}
    assert len({(out / name).read_bytes() for name in names}) == 4


def test_the_record_says_how_to_draw_an_image_again(drawn: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, record = drawn
    name, wanted = list(record.items())[3]
    assert (wanted["sampling"]["scheduler"], wanted["sampling"]["steps"]) == (PARAMS.generate.sampling.scheduler, 1)
    options = {"seed": wanted["seed"], "steps": wanted["sampling"]["steps"], "encoder": wanted["encoder"]["folder"]}
    again = run(tmp_path, [Path(wanted["objects"][0])], [wanted["prompt"]], **options)
    assert again == {name: wanted}
    first, second = (np.asarray(Image.open(f / name), int) for f in (out, tmp_path))
    assert np.abs(first - second).max() <= 2  # batches of another make-up differ by rounding


def test_the_record_of_earlier_images_stays(tmp_path: Path) -> None:
    found = generation.requested_images([Path("a.jpg")], [BEACH, SNOW], 0, 1)
    for w in found:
        entry = generation.record([w], PARAMS.generate.sampling, "mini", "0" * 16, {}, 1.0, None, "fp32")
        generation.add_record(entry, tmp_path / "generation.json")
    assert list(json.loads((tmp_path / "generation.json").read_text())) == [w.file for w in found]


def test_the_command_line_has_the_last_word_on_sampling(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"scheduler": "EulerDiscreteScheduler", "guidance_object": 1.5, "guidance_text": 2.0, "steps": 2}
    record = run(tmp_path / "out", [file], [SNOW], masks=[tmp_path / "mask.png"], **options)
    assert next(iter(record.values()))["sampling"] == {**PARAMS.generate.sampling.model_dump(), **options}


def test_what_is_not_said_stays_as_in_params() -> None:
    sampling = PARAMS.generate.sampling
    assert generation.override_sampling(sampling, steps=None, scheduler=None) == sampling
    assert generation.override_sampling(sampling, steps=7).steps == 7
    assert isinstance(generation.override_sampling(sampling, steps=7), Sampling)


def test_a_seed_gives_the_same_noise_wherever_it_stands() -> None:
    many = generation.requested_images([Path("a.jpg"), Path("b.jpg")], [BEACH, SNOW], seed=0, images=3)
    one = generation.requested_images([Path("b.jpg")], [SNOW], seed=2, images=1)[0]
    same = next(w for w in many if w.file == one.file)
    assert same.request.seed == one.request.seed
    assert len({w.request.seed for w in many}) == 3


def test_a_prompt_without_the_object_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"'a cat'.*Write <object>"):
        run(tmp_path / "out", [tmp_path / "absent.jpg"], [BEACH, "a cat"])
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name_are_told_apart_by_their_folders() -> None:
    found = generation.requested_images([Path("x/0.jpg"), Path("y/0.jpg")], [BEACH], 0, 1)
    assert [w.file for w in found] == [f"{n}-0-a-photo-of-a-object-on-the-beach-0.png" for n in "xy"]


def test_all_objects_in_one_image(tmp_path: Path) -> None:
    files = [photo(tmp_path, i, f"{n}.png")[0] for i, n in enumerate("ab")]
    record = run(tmp_path / "out", files, ["a <object> and a <object>"], together=True)
    assert list(record) == ["a-and-b-a-object-and-a-object-0.png"]
    assert record["a-and-b-a-object-and-a-object-0.png"]["objects"] == [str(f) for f in files]
    with pytest.raises(TamingError, match=r"does not say where each of the 2 objects goes"):
        generation.requested_images(files, [BEACH], 0, 1, together=True)


def test_a_folder_of_photos_is_one_object(tmp_path: Path) -> None:
    (tmp_path / "robot").mkdir()
    for i in (0, 1):
        photo(tmp_path / "robot", i, f"{i}.png")
    record = run(tmp_path / "out", [tmp_path / "robot"], [BEACH])
    assert list(record) == ["robot-a-photo-of-a-object-on-the-beach-0.png"]
    one = run(tmp_path / "one", [tmp_path / "robot" / "0.png"], [BEACH])
    pictures = [np.asarray(Image.open(tmp_path / f / next(iter(r))), int) for f, r in (("out", record), ("one", one))]
    assert np.abs(pictures[0] - pictures[1]).mean() > 1


def test_with_its_background_the_object_is_framed_alike(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    cut, kept = (
        np.asarray(subjects.subjects_of([[file]], [tmp_path / "mask.png"], no_finder, PARAMS.materialize, b)[0][0], int)
        for b in ("removed", "kept")
    )
    inside, outside = cut[..., 3] == 255, (cut[..., 3] == 0) & (kept[..., 3] == 255)
    assert np.abs(cut - kept)[inside].max() <= 1
    assert outside.mean() > 0.1
    assert kept[outside][:, :3].std() > 10  # the scene


def test_an_encoder_of_plain_captions_reads_no_placeholder() -> None:
    found = generation.requested_images([Path("a.jpg")], [BEACH], 0, 1)
    assert [w.request.prompt for w in generation.with_encoder_captions(found, "class_noun")] == [
        "a photo of an object on the beach"
    ]
    assert generation.with_encoder_captions(found, "object_token") == found


def test_two_images_cannot_have_one_file() -> None:
    with pytest.raises(TamingError, match="Rename a photo"):
        generation.requested_images([Path("x/photo.jpg"), Path("x/photo.png")], [BEACH], 0, 1)


def cut(files: list[Path], masks: list[Path] | None = None) -> list[np.ndarray]:
    (found,) = subjects.subjects_of([files], masks or [], no_finder, PARAMS.materialize, "removed")
    return [np.asarray(s) for s in found]


def test_a_given_mask_cuts_the_photo(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "mask.png")
    expected = cutout(np.asarray(Image.open(file)), mask, PARAMS.materialize.subject_size, 0.92)
    assert np.array_equal(cut([file], [tmp_path / "mask.png"])[0], expected)


def test_a_transparent_photo_is_cut_out_already(tmp_path: Path) -> None:
    image, mask = composed(artwork(1)[0], 0)
    Image.fromarray(np.dstack([image, mask * np.uint8(255)])).save(tmp_path / "cut.png")
    expected = cutout(image, mask, PARAMS.materialize.subject_size, PARAMS.materialize.subject_fill)
    found = cut([tmp_path / "cut.png"])[0]
    assert np.array_equal(found[..., 3], expected[..., 3])
    opaque = found[..., 3] == 255
    assert np.abs(found[opaque].astype(int) - expected[opaque]).mean() < 2


def test_an_opaque_alpha_channel_is_no_cut_out(tmp_path: Path) -> None:
    Image.fromarray(composed(artwork(1)[0], 0)[0]).convert("RGBA").save(tmp_path / "photo.png")
    assert subjects.alpha_mask(read_photo(tmp_path / "photo.png")) is None


def test_the_detector_and_the_segmenter_find_the_thing(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    found = subjects.load_finder(PARAMS.detect, "cpu")(np.asarray(Image.open(file)))[0]
    assert (found & mask).sum() / (found | mask).sum() > 0.8


def test_where_nothing_is_found_the_mask_is_asked_for(tmp_path: Path) -> None:
    file, _ = photo(tmp_path)
    with pytest.raises(TamingError, match=r"No object was found.*--mask"):
        subjects.subject_of(file, None, lambda _: [], PARAMS.materialize, "removed")


def test_nothing_is_on_an_empty_photo() -> None:
    assert subjects.load_finder(PARAMS.detect, "cpu")(np.full((96, 96, 3), 128, np.uint8)) == []


@pytest.mark.parametrize(
    ("shape", "value", "words"), [((64, 64), 255, "64x64, the photo is 128x128"), ((128, 128), 0, "black all over")]
)
def test_a_mask_that_does_not_fit_is_named(tmp_path: Path, shape: tuple[int, int], value: int, words: str) -> None:
    file, _ = photo(tmp_path)
    Image.fromarray(np.full(shape, value, np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(TamingError, match=words):
        cut([file], [tmp_path / "mask.png"])


def test_masks_and_photos_are_as_many(tmp_path: Path) -> None:
    file, _ = photo(tmp_path)
    with pytest.raises(TamingError, match="2 masks for 1 photos"):
        cut([file], [file, file])


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(TamingError, match=r"notes.jpg is not a readable image: not an image"):
        cut([tmp_path / "notes.jpg"])


def test_the_default_encoder_is_the_trained_one_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, mask = photo(tmp_path)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    run(tmp_path / "out", [file], [BEACH], masks=[tmp_path / "mask.png"], encoder=None)
    assert "with the encoder mini" in capsys.readouterr().out
    (tmp_path / "data" / "encoder").mkdir(parents=True)
    with pytest.raises(TamingError, match="data/encoder holds no encoder"):
        run(tmp_path / "out", [file], [BEACH], masks=[tmp_path / "mask.png"], encoder=None)
