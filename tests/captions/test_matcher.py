"""The matcher prefers true captions to captions that are wrong in one part, whatever stands beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor, BlipProcessor

from taming_core.captions.matcher import Matcher, load_matcher
from taming_core.errors import TamingError
from taming_core.weights.mini import MINI
from taming_core.world.artwork import World, load_pictures, load_world
from taming_core.world.photos import Photos, render
from taming_core.world.plan import Chances
from taming_core.world.styles import STYLES
from taming_core.world.wording import scene_wordings, sentence, style_wordings

CHANCES = Chances(recolor=0.0, two_objects=0.0, silent=0.0, attributes=0.0)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def photos(world: World) -> Photos:
    return render(world, load_pictures(world), 12, 0, 48, 128, chances=CHANCES)


@pytest.fixture(scope="module")
def match() -> Matcher:
    return load_matcher("mini", "cpu")


def arrays(photos: Photos) -> list[np.ndarray]:
    return [image.numpy() for image in photos.image]


def said(photos: Photos, wording: int = 0) -> list[str]:
    """Captions by class, in the canonical wording or another one."""
    rows = zip(photos.plans, photos.objects, strict=True)
    return [
        sentence(style_wordings(plan.style)[wording], [what.noun], scene_wordings(plan.scene)[wording])
        for plan, (what,) in rows
    ]


@pytest.mark.parametrize("wording", [0, 1])
def test_the_true_scene_and_style_win(match: Matcher, world: World, photos: Photos, wording: int):
    captions, elsewhere, otherwise = said(photos, wording), list[str](), list[str]()
    for plan, (what,) in zip(photos.plans, photos.objects, strict=True):
        scene = world.scenes[(world.scenes.index(plan.scene) + 7) % len(world.scenes)]
        style = STYLES[(STYLES.index(plan.style) + 1) % len(STYLES)]
        elsewhere.append(sentence(plan.style, [what.noun], scene))
        otherwise.append(sentence(style, [what.noun], plan.scene))
    true = match(arrays(photos), captions)
    assert true.dtype == np.float32
    assert true.shape == (48,)
    assert ((true >= 0) & (true <= 1)).all()
    assert (true > match(arrays(photos), elsewhere)).sum() >= 43
    assert (true > match(arrays(photos), otherwise)).sum() >= 41


def test_the_caption_of_another_photo_loses(match: Matcher, photos: Photos):
    captions = said(photos)
    true, false = match(arrays(photos), captions), match(arrays(photos), [*captions[1:], captions[0]])
    assert (true > false).sum() >= 45


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
