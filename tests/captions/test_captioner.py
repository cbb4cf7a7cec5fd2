"""The captioner says where and how, keeps the words it is given, and answers each photo for itself."""

import os
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

from taming_core.captions.captioner import Captioner, load_captioner, tidy
from taming_core.errors import TamingError
from taming_core.weights.mini import MINI
from taming_core.world.artwork import World, load_pictures, load_world
from taming_core.world.photos import Photos, render
from taming_core.world.plan import Chances
from taming_core.world.wording import Facts, facts_of

PLAIN = Chances(recolor=0.0, style=0.0, two_objects=0.0, silent=0.0, attributes=0.0)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def photos(world: World) -> Photos:
    return render(world, load_pictures(world), 11, 0, 32, 128, chances=PLAIN)


@pytest.fixture(scope="module")
def describe() -> Captioner:
    return load_captioner("mini", "cpu", num_beams=3, max_new_tokens=24)


def arrays(photos: Photos) -> list[np.ndarray]:
    return [image.numpy() for image in photos.image]


def tiny_blip(folder: Path, **tower: int) -> Path:
    """A BLIP with random weights whose shapes and words are its own."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "photo", "of", "cat", "##s"]
    text: dict[str, Any] = dict(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=5, sep_token_id=3, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    vision = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=3, image_size=32,
                  patch_size=16, initializer_range=0.02) | tower  # fmt: skip
    text["encoder_hidden_size"] = vision["hidden_size"]
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def facts(captions: list[str], world: World) -> list[Facts]:
    return [facts_of(caption, world.scenes) for caption in captions]


def right_scenes(captions: list[str], photos: Photos, world: World) -> int:
    told = zip(facts(captions, world), photos.plans, strict=True)
    return sum(said.scene == plan.scene for said, plan in told)


def test_captions_tell_scene_and_style(describe: Captioner, world: World, photos: Photos):
    captions = describe(arrays(photos), "")
    assert right_scenes(captions, photos, world) >= 26, captions
    assert sum(said.style == "a photo of" for said in facts(captions, world)) >= 28
    assert all(caption == caption.lower() and "[" not in caption for caption in captions)


def test_captions_name_the_thing_or_its_class(describe: Captioner, world: World, photos: Photos):
    said = facts(describe(arrays(photos), ""), world)
    right = [f.object_words in (what.name, what.noun) for f, (what,) in zip(said, photos.objects, strict=True)]
    assert sum(right) >= 13, list(zip(said, photos.objects, strict=True))
    assert len({f.object_words for f in said}) > 8  # not classes alone


def test_a_given_start_is_continued(describe: Captioner, world: World, photos: Photos):
    captions = describe(arrays(photos), "a photo of an animal")
    assert all(caption.startswith("a photo of an animal ") for caption in captions)
    assert right_scenes(captions, photos, world) >= 24, captions


@pytest.mark.parametrize("prefix", ["a photo of a zyxomma-9", "a photo of an été", "a photo of a squirrel , asleep"])
def test_a_start_of_unknown_words_survives(describe: Captioner, photos: Photos, prefix: str):
    (caption,) = describe(arrays(photos)[:1], prefix)
    assert caption.startswith(tidy(prefix))


def test_a_caption_does_not_depend_on_its_neighbours(describe: Captioner, photos: Photos):
    images = arrays(photos)[:5]
    images[1] = images[1].repeat(2, axis=0)  # another size
    together = describe(images, "")
    assert together == [describe([image], "")[0] for image in images]
    assert together == describe(images, "")


def test_no_photo_no_caption(describe: Captioner):
    assert describe([], "a photo of") == []


def test_any_blip_folder_is_a_captioner(tmp_path: Path):
    describe = load_captioner(str(tiny_blip(tmp_path)), "cpu", num_beams=1, max_new_tokens=3)
    photo = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    (plain,), (started,) = describe([photo], ""), describe([photo], "a photo of a cat")
    assert {word.removesuffix("s") for word in plain.split()} <= {"a", "photo", "of", "cat", "##"}
    assert started.startswith("a photo of a cat")


def test_base_and_large_differ_in_their_config_alone(tmp_path: Path):
    """The large one's tower is wider than its text decoder; so is this one's."""
    folder = tiny_blip(tmp_path, hidden_size=40, num_hidden_layers=3, num_attention_heads=4)
    describe = load_captioner(str(folder), "cpu", num_beams=2, max_new_tokens=3)
    photo = np.zeros((48, 40, 3), np.uint8)
    assert describe([photo], "a photo of a cat")[0].startswith("a photo of a cat")


def test_a_file_stands_for_its_folder_and_a_pickle_of_tensors_will_do(tmp_path: Path):
    folder, photo = tiny_blip(tmp_path), np.full((48, 40, 3), 90, np.uint8)
    tensors = folder / "model.safetensors"
    expected = load_captioner(str(tensors), "cpu", num_beams=1, max_new_tokens=3)([photo], "")
    torch.save(load_file(tensors), folder / "pytorch_model.bin")
    tensors.unlink()
    assert load_captioner(str(folder), "cpu", num_beams=1, max_new_tokens=3)([photo], "") == expected


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def test_a_pickle_with_code_and_a_damaged_file_are_refused(tmp_path: Path):
    folder = tiny_blip(tmp_path)
    (folder / "model.safetensors").write_bytes(b"noise")
    with pytest.raises(TamingError, match="There is no BLIP captioner"):
        load_captioner(str(folder), "cpu", num_beams=1, max_new_tokens=3)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(TamingError, match="There is no BLIP captioner"):
        load_captioner(str(folder), "cpu", num_beams=1, max_new_tokens=3)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("someone/blip-nowhere", "hf download someone/blip-nowhere"),
        ("./no/such/folder", "Set caption.captioner to mini, to a folder with its config.json"),
    ],
)
def test_an_absent_model_is_explained(monkeypatch: pytest.MonkeyPatch, spec: str, remedy: str):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TamingError, match=remedy.replace(".", r"\.")):
        load_captioner(spec, "cpu", num_beams=1, max_new_tokens=3)


def test_another_kind_of_model_is_refused():
    with pytest.raises(TamingError, match="is no BLIP captioner"):
        load_captioner(str(MINI / "clip"), "cpu", num_beams=1, max_new_tokens=3)
