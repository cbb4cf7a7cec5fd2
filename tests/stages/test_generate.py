"""`taming generate`: a photo and a prompt to images and a record of them."""

import json
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
from taming_core.images.families import load_pipeline
from taming_core.objects import subjects
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import Sampling
from taming_core.photos.decode import read_photo
from taming_core.photos.mask_files import alpha_mask
from taming_core.photos.masks import cutout
from taming_core.training.start import collage_size

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
    assert len(wanted["subjects"]) == 1
    options = {"seed": wanted["seed"], "steps": wanted["sampling"]["steps"], "encoder": wanted["encoder"]["folder"]}
    again = run(tmp_path, [Path(wanted["objects"][0])], [wanted["prompt"]], **options)
    assert again == {name: wanted}
    first, second = (np.asarray(Image.open(f / name), int) for f in (out, tmp_path))
    assert np.abs(first - second).max() <= 2  # batches of another make-up differ by rounding


def test_the_record_of_earlier_images_stays(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        records.add_record(name, {"prompt": BEACH}, tmp_path)
    assert list(json.loads((tmp_path / "generation.json").read_text())) == ["a.png", "b.png"]


def test_the_command_line_has_the_last_word_on_sampling(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"scheduler": "EulerDiscreteScheduler", "guidance_object": 1.5, "guidance_text": 2.0, "steps": 2}
    record = run(tmp_path / "out", [file], [SNOW], masks=[tmp_path / "mask.png"], **options)
    assert next(iter(record.values()))["sampling"] == {**PARAMS.generate.sampling.model_dump(), **options}


def test_a_negative_prompt_and_a_file_of_prompts_are_drawn_and_recorded(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "prompts.txt").write_text(f"# scenes\n{BEACH}\n{SNOW}\n")
    options = {"masks": [tmp_path / "mask.png"], "prompts_file": tmp_path / "prompts.txt"}
    plain = run(tmp_path / "out", [file], [BEACH], **options)
    assert [wanted["prompt"] for wanted in plain.values()] == [BEACH, SNOW]
    both = run(tmp_path / "out", [file], [], **options, negative_prompt="on the beach")
    assert list(both)[:2] == list(plain)
    assert [wanted["negative_prompt"] for wanted in both.values()] == ["", "", "on the beach", "on the beach"]
    pictures = [np.asarray(Image.open(tmp_path / "out" / name), int) for name in both]
    assert np.abs(pictures[0] - pictures[2]).mean() > 1


def test_pictures_of_an_earlier_run_stay(tmp_path: Path) -> None:
    for name in "xy":
        (tmp_path / name).mkdir()
        photo(tmp_path / name, "xy".index(name), "0.png")
        Image.fromarray(photo(tmp_path / name, "xy".index(name), "0.png")[1]).save(tmp_path / name / "mask.png")
    out, prompts = tmp_path / "out", [f"{BEACH} with a very old wooden house far behind it", f"{BEACH}!", f"{BEACH}?"]
    for name in ("x", "y", "x"):
        before = {path.name: path.read_bytes() for path in out.glob("*object*.png")}
        record = run(out, [tmp_path / name / "0.png"], prompts, masks=[tmp_path / name / "mask.png"])
        after = {path.name: path.read_bytes() for path in out.glob("*object*.png")}
        assert before.items() <= after.items()
        assert set(record) == set(after)
    assert len(record) == 6  # the third run drew what the first had drawn


def test_names_of_any_length_and_script_are_drawn(tmp_path: Path) -> None:
    names = ["长" * 80 + ".png", "y" * 250 + ".png"]
    files = [photo(tmp_path, i, name)[0] for i, name in enumerate(names)]
    masks = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(masks):
        Image.fromarray(composed(artwork(3)[i], i)[1]).save(path)
    record = run(tmp_path / "out", files, ["a photo of a <object> " + "在雪地里的樱桃" * 2], masks=masks)
    assert [[Path(p).name for p in wanted["objects"]] for wanted in record.values()] == [[name] for name in names]
    assert all(name.isascii() and len(name) <= 100 for name in record)


def test_numbers_place_objects_as_their_order_does(tmp_path: Path) -> None:
    files = [Path("a.jpg"), Path("b.jpg")]
    (numbered,) = generation.requested_images(files, ["a <object:2> on a <object:1>"], 0, 1, together=True)
    (swapped,) = generation.requested_images(files[::-1], ["a <object> on a <object>"], 0, 1, together=True)
    assert numbered.request.prompt == swapped.request.prompt
    assert [files[i] for i in numbered.request.objects] == [files[::-1][i] for i in swapped.request.objects]
    assert numbered.prompt == "a <object:2> on a <object:1>"


def test_a_box_places_the_object_and_is_recorded(tmp_path: Path) -> None:
    thing, prompt = photo(tmp_path)[0], [BEACH]
    lays = tmp_path / "encoder"
    pipeline = load_pipeline("mini")
    pipeline.object_encoder.add_collage(collage_size(pipeline.family))
    torch.nn.init.normal_(pipeline.object_encoder.collage_layer.conv.weight, std=0.05)
    pipeline.save_pretrained(lays)
    left, right = ("0,0.2,0.5,0.7", "0.5,0.2,1,0.7")
    records_of = [run(tmp_path / box, [thing], prompt, encoder=str(lays), boxes=[box]) for box in (left, right)]
    assert [next(iter(r.values()))["boxes"] for r in records_of] == [[[0.0, 0.2, 0.5, 0.7]], [[0.5, 0.2, 1.0, 0.7]]]
    first, second = (next((tmp_path / box).glob("*0.png")).read_bytes() for box in (left, right))
    assert first != second
    with pytest.raises(TamingError, match=r"trained without train\.collage"):
        run(tmp_path / "plain", [thing], prompt, boxes=[left])
    for box, message in (("0,0,1", "four numbers"), ("a,b,c,d", "four numbers"), ("0,0,2,1", "within the image")):
        with pytest.raises(TamingError, match=message):
            run(tmp_path / "wrong", [thing], prompt, encoder=str(lays), boxes=[box])
    with pytest.raises(TamingError, match="2 boxes for an image of 1 objects"):
        run(tmp_path / "wrong", [thing], prompt, encoder=str(lays), boxes=[left, right])
    assert not (tmp_path / "wrong").exists()


def test_what_is_not_said_stays_as_in_params() -> None:
    sampling = PARAMS.generate.sampling
    assert generation.override_sampling(sampling, steps=None, scheduler=None) == sampling
    assert generation.override_sampling(sampling, steps=7).steps == 7
    assert isinstance(generation.override_sampling(sampling, steps=7), Sampling)


def test_a_seed_gives_the_same_noise_wherever_it_stands() -> None:
    many = generation.requested_images([Path("a.jpg"), Path("b.jpg")], [BEACH, SNOW], seed=0, images=3)
    one = generation.requested_images([Path("b.jpg")], [SNOW], seed=2, images=1)[0]
    same = next(w for w in many if w.readable_name == one.readable_name)
    assert same.request.seed == one.request.seed
    assert len({w.request.seed for w in many}) == 3


def test_a_prompt_without_the_object_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"'a cat'.*Write <object>"):
        run(tmp_path / "out", [tmp_path / "absent.jpg"], [BEACH, "a cat"])
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name_are_told_apart_by_their_folders() -> None:
    found = generation.requested_images([Path("x/0.jpg"), Path("y/0.jpg")], [BEACH], 0, 1)
    assert [w.readable_name for w in found] == [f"{n}-0-a-photo-of-a-object-on-the-beach-0" for n in "xy"]


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


def cut(files: list[Path], masks: list[Path] | None = None) -> list[np.ndarray]:
    (found,) = subjects.subjects_of([files], masks or [], no_finder, PARAMS.materialize, "removed")
    return [np.asarray(s) for s in found]


def test_a_given_mask_cuts_the_photo(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "mask.png")
    expected = cutout(np.asarray(Image.open(file)), mask, PARAMS.materialize.subject_size, 0.92)
    assert np.array_equal(cut([file], [tmp_path / "mask.png"])[0], expected)


def test_a_folder_of_an_object_may_hold_captions_masks_and_notes(tmp_path: Path) -> None:
    file, mask = photo(tmp_path)
    Image.fromarray(mask).save(file.with_name(f"{file.stem}-masklabel.png"))
    for name in (f"{file.stem}.txt", "README.md", "LICENSE"):
        (tmp_path / name).write_text("a toy")
    assert generation.photos_of(tmp_path) == [file]
    expected = cutout(np.asarray(Image.open(file)), mask, PARAMS.materialize.subject_size, 0.92)
    assert np.array_equal(cut([file])[0], expected)


def test_a_mask_beside_a_photo_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file, _ = photo(tmp_path)
    Image.new("L", (8, 9)).save(file.with_name(f"{file.stem}_mask.png"))
    with pytest.raises(TamingError, match=r"The mask beside .* cannot be used: given mask has another shape"):
        cut([file])


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
    assert alpha_mask(read_photo(tmp_path / "photo.png")) is None


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
