"""The matcher prefers true captions to captions that are wrong in one part, whatever stands beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor, BlipProcessor

from taming_core.errors import TamingError
from taming_core.pretrained.captioner import MINI
from taming_core.pretrained.matcher import Matcher, load_matcher
from taming_core.world import Chances, Photos, World, load_world, render
from taming_core.world_styles import STYLES

WORLD = Path(__file__).parents[1] / "pipelines" / "mini" / "world"


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(WORLD)


@pytest.fixture(scope="module")
def photos(world: World) -> Photos:
    chances = Chances(recolor=0.0, style=0.35, two_objects=0.0, unnamed_scene=0.0)
    return render(world, 12, 0, 32, 128, chances=chances)


@pytest.fixture(scope="module")
def match() -> Matcher:
    return load_matcher("mini", "cpu")


def arrays(photos: Photos) -> list[np.ndarray]:
    return [image.numpy() for image in photos.image]


def said(photos: Photos) -> list[str]:
    rows = zip(photos.style, photos.objects, photos.scene, strict=True)
    return [f"{style} a {what.noun} {scene}" for style, (what,), scene in rows]


def test_the_true_scene_and_style_win(match: Matcher, world: World, photos: Photos):
    captions = said(photos)
    elsewhere = [
        text.replace(scene, world.scenes[(world.scenes.index(scene) + 7) % len(world.scenes)])
        for text, scene in zip(captions, photos.scene, strict=True)
    ]
    otherwise = [
        text.replace(style, STYLES[(STYLES.index(style) + 1) % len(STYLES)])
        for text, style in zip(captions, photos.style, strict=True)
    ]
    true = match(arrays(photos), captions)
    assert true.dtype == np.float32
    assert true.shape == (32,)
    assert ((true >= 0) & (true <= 1)).all()
    assert (true > match(arrays(photos), elsewhere)).sum() >= 28
    assert (true > match(arrays(photos), otherwise)).sum() >= 24


def test_a_score_depends_on_its_own_pair_only(match: Matcher, photos: Photos):
    captions = [*said(photos)[:3], "a photo"]
    images = arrays(photos)[:4]
    images[2] = images[2].repeat(2, axis=1)  # another size
    alone = [match([image], [text])[0] for image, text in zip(images, captions, strict=True)]
    np.testing.assert_allclose(match(images, captions), alone, atol=1e-5)


def test_every_photo_needs_a_caption(match: Matcher, photos: Photos):
    assert match([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 photos and 1 captions"):
        match(arrays(photos)[:2], ["a photo"])


def test_any_blip_folder_is_a_matcher(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"]
    text = dict(vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=12)  # fmt: skip
    vision = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=3, image_size=32,
                  patch_size=16, initializer_range=0.02)  # fmt: skip
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=8))
    model.save_pretrained(tmp_path)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=12)
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    processor.save_pretrained(tmp_path)

    photo = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    inputs: Any = processor(images=photo, text="a cat", return_tensors="pt")  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        logits = model.eval()(**inputs).itm_score
    found = load_matcher(str(tmp_path), "cpu")([photo], ["a cat"])
    np.testing.assert_allclose(found, logits.softmax(-1)[:, 1].numpy(), atol=1e-6)


def test_a_captioner_is_no_matcher():
    with pytest.raises(TamingError, match="is no BLIP matcher"):
        load_matcher(str(MINI / "captioner"), "cpu")
