"""The shipped judges on the world's own objects, and other models as judges."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_rows import artwork, composed
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from taming_core.errors import TamingError
from taming_core.evaluation import judges
from taming_core.evaluation.judges import TextJudge, composite_on_grey, load_judge, load_text_judge, pose_images

THINGS = 8


@pytest.fixture(scope="module")
def text_judge() -> TextJudge:
    return load_text_judge("mini", "cpu")


def test_the_judge_finds_a_thing_among_others() -> None:
    judge = load_judge("mini", "cpu")
    gallery = judge([composite_on_grey(t.resize((128, 128))) for t in artwork(THINGS)])
    photos = judge([Image.fromarray(composed(t, i, tilt=12)[0]) for i, t in enumerate(artwork(THINGS))])
    assert gallery.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-5)
    assert (photos @ gallery.T).argmax(1).tolist() == list(range(THINGS))


def test_a_feature_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, things = load_judge("mini", "cpu"), [composite_on_grey(t) for t in artwork(3)]
    together = judge(things)
    monkeypatch.setattr(judges, "BATCH_SIZE", 1)
    np.testing.assert_allclose(judge(things), together, atol=1e-5)


def test_the_text_judge_reads_the_scene(text_judge: TextJudge) -> None:
    blue, green = (Image.new("RGB", (128, 128), colour) for colour in ((60, 110, 220), (60, 170, 80)))
    photos = [Image.composite(artwork(1)[0].convert("RGB").resize((128, 128)), ground, small(artwork(1)[0]))
              for ground in (blue, green)]  # fmt: skip
    choices = text_judge.texts([f"a photo of a <object> on a {c} background" for c in ("blue", "green", "red")])
    assert (text_judge.images(photos) @ choices.T).argmax(1).tolist() == [0, 1]


def small(thing: Image.Image) -> Image.Image:
    """Its alpha, so that it lies in the middle of a ground."""
    mask = Image.new("L", (128, 128))
    mask.paste(thing.getchannel("A").resize((80, 80)), (24, 24))
    return mask


def test_a_text_is_cut_to_the_models_length(text_judge: TextJudge) -> None:
    long = text_judge.texts(["a photo of a dog " * 40])
    assert np.isfinite(long).all()
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1, atol=1e-5)


def test_mid_grey_is_what_the_encoder_sees_around_a_subject() -> None:
    seen = np.asarray(composite_on_grey(Image.new("RGBA", (4, 4), (255, 0, 0, 0))))
    assert (seen == 128).all()
    half = np.asarray(composite_on_grey(Image.new("RGBA", (4, 4), (255, 255, 255, 128))))
    assert abs(int(half[0, 0, 0]) - 192) <= 1


def test_a_folder_with_another_vision_model_judges_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    found = load_judge(str(tmp_path), "cpu")([composite_on_grey(t) for t in artwork(2)])
    assert found.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_judge_without_a_pooler_gets_no_random_one(tmp_path: Path) -> None:
    """As facebook/dino-vits16 is published."""
    torch.manual_seed(0)
    shape = ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16)
    model = ViTModel(shape, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    judge, images = load_judge(str(tmp_path), "cpu"), [composite_on_grey(t) for t in artwork(2)]
    with torch.no_grad():
        first = model(judge.preprocess(images)).last_hidden_state[:, 0]
    np.testing.assert_allclose(judge(images), torch.nn.functional.normalize(first, dim=-1).numpy(), atol=1e-6)


def test_a_judge_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    shape = Dinov2Config(image_size=28, patch_size=14, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    Dinov2Model(shape).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    shape.num_hidden_layers = 2
    shape.save_pretrained(tmp_path)
    with pytest.raises(TamingError, match=r"is no judge, for it has no .*1\."):
        load_judge(str(tmp_path), "cpu")


@pytest.fixture
def other_clip(tmp_path: Path) -> Path:
    """A CLIP with its own image size whose tokenizer does not know the placeholder."""
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 880, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 3}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(judges.MINI / "clip")
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<object>", "<other>"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<object>", "<other>"))
    return tmp_path


def test_a_clip_folder_is_judge_of_both(other_clip: Path) -> None:
    images = [composite_on_grey(t) for t in artwork(2)]
    both = load_text_judge(str(other_clip), "cpu")
    assert both.images(images).shape == (2, 20)
    np.testing.assert_allclose(load_judge(str(other_clip), "cpu")(images), both.images(images), atol=1e-6)


def test_a_model_that_never_saw_the_placeholder_reads_object(other_clip: Path) -> None:
    judge = load_text_judge(str(other_clip), "cpu")
    said = judge.texts(["a photo of a <object> underwater", "a photo of a object underwater", "a photo of a cat"])
    np.testing.assert_array_equal(said[0], said[1])
    assert np.abs(said[0] - said[2]).max() > 1e-4


@pytest.mark.parametrize("load", [load_judge, load_text_judge])
@pytest.mark.parametrize("spec", ["nobody/nothing", "./nowhere"])
def test_an_absent_model_says_what_to_do(load, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TamingError, match=r"to mini") as error:
        load(spec, "cpu")
    assert ("hf download" in str(error.value)) == (spec == "nobody/nothing")


def test_a_vision_model_is_no_text_judge(tmp_path: Path) -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(TamingError, match="text_judge"):
        load_text_judge(str(tmp_path), "cpu")


def leaning() -> Image.Image:
    """Nothing of it is symmetric: a blue L with a red corner."""
    thing = np.zeros((128, 128, 4), np.uint8)
    thing[10:118, 20:50] = thing[90:118, 20:110] = 30, 60, 220, 255
    thing[10:40, 20:50] = 220, 40, 30, 255
    return Image.fromarray(thing)


def test_poses_fill_the_square_and_hold_the_subject_itself() -> None:
    found = pose_images(leaning())
    assert len(found) == 22
    assert {p.size for p in found} == {(128, 128)}
    upright = np.asarray(found[5], np.int64)
    seen = (np.abs(upright - 128) > 40).any(-1)
    assert max(np.ptp(np.flatnonzero(seen.any(axis))) for axis in (0, 1)) == pytest.approx(0.92 * 128, abs=3)
    mirrored = np.asarray(found[16], np.int64)
    assert np.abs(mirrored[:, ::-1] - upright).mean() < 2
