"""One photo to K tokens."""

import pytest
import tiny
import torch
from PIL import Image

from taming_core.conditions import subject_pixels, token_ids
from taming_core.config import EncoderParams
from taming_core.errors import TamingError
from taming_core.fresh import fresh_encoder
from taming_core.object_encoder import ObjectEncoder
from taming_core.pretrained import clip


@pytest.mark.parametrize(("projector", "tokens"), [("full", 4), ("linear", 3), ("resampler", 5)])
def test_every_projector_gives_k_tokens(projector: str, tokens: int) -> None:
    encoder = ObjectEncoder(tiny.TOWER, projector, tokens, 16, "concat")
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, tokens, 16)


def test_full_has_a_token_per_patch() -> None:
    with pytest.raises(TamingError, match=r"gives 4 tokens, not 7. Set tokens to 4"):
        ObjectEncoder(tiny.TOWER, "full", 7, 16, "concat")


def test_the_tower_sees_what_it_was_trained_on() -> None:
    """A white subject in [-1, 1] reaches the tower as (1 - mean) / std."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    encoder = ObjectEncoder(tiny.TOWER, "full", 4, 16, "concat", mean=mean, std=std)
    seen = []
    encoder.vision.register_forward_pre_hook(lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True)
    encoder(torch.ones(1, 3, 32, 32))
    expected = torch.tensor([(1 - m) / s for m, s in zip(mean, std, strict=True)])
    torch.testing.assert_close(seen[0][0, :, 5, 5], expected)


def test_saved_and_opened_again_it_says_the_same(tmp_path) -> None:
    encoder = tiny.object_encoder(tiny.unet(), "decoupled", "resampler")
    encoder.save_pretrained(tmp_path)
    again = ObjectEncoder.from_pretrained(tmp_path)
    subject = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(subject), encoder(subject))
    assert again.denoiser_layers().keys() == encoder.denoiser_layers().keys()


def test_a_fresh_encoder_has_the_tower_of_the_clip_model_and_repeats() -> None:
    p = EncoderParams(tower="mini", projector="linear", tokens=4, tower_blocks=1)
    first, second = (fresh_encoder(tiny.unet(), p, "decoupled", seed) for seed in (3, 3))
    other = fresh_encoder(tiny.unet(), p, "decoupled", 4)
    tower = clip.load_tower("mini").state_dict()
    assert all(torch.equal(value, tower[name]) for name, value in first.vision.state_dict().items())
    assert all(torch.equal(v, second.state_dict()[n]) for n, v in first.state_dict().items())
    assert not torch.equal(first.projection.image_embeds.weight, other.projection.image_embeds.weight)
    assert first.config["mean"] == (0.5, 0.5, 0.5)


def test_what_is_not_the_object_is_mid_grey() -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.putpixel((3, 4), (255, 0, 0, 255))
    pixels = subject_pixels(image, 8)
    assert pixels[:, 4, 3].tolist() == [1.0, -1.0, -1.0]
    assert pixels.abs().sum() == 3


def test_prompts_are_padded_and_the_placeholder_is_one_token() -> None:
    ids = token_ids(tiny.tokenizer(), ["a photo of a <object>", "", "a dog " * 40])
    assert ids.shape == (3, 32)
    assert (ids[0] == tiny.tokenizer().convert_tokens_to_ids("<object>")).sum() == 1
