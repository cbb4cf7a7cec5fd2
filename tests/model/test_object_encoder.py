"""One photo to K tokens."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from transformers import BertConfig, BitImageProcessor

from taming_core.bases.family import token_ids
from taming_core.errors import TamingError
from taming_core.model import clip
from taming_core.model.inputs import subject_pixels
from taming_core.model.object_encoder import ObjectEncoder, encode_subjects
from taming_core.model.towers import new_tower
from taming_core.training.start import new_object_encoder

TOWERS = {
    "clip": tiny.TOWER,
    "dinov2": {"model_type": "dinov2", **tiny.TOWER, "mlp_ratio": 2},
    "siglip": {"model_type": "siglip_vision_model", **tiny.TOWER},
}


@pytest.mark.parametrize(("projector", "tokens"), [("full", 4), ("linear", 3), ("mlp", 1), ("resampler", 5)])
@pytest.mark.parametrize("tower", TOWERS)
def test_every_projector_gives_k_tokens(tower: str, projector: str, tokens: int) -> None:
    encoder = ObjectEncoder(TOWERS[tower], projector, tokens, 16, "concat")
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


FRESH = {"start": None, "base": "mini", "background": "removed", "injection": "decoupled"}


def fresh(tower: str, seed: int = 3, projector: str = "linear", tokens: int = 4, **values: Any) -> ObjectEncoder:
    encoder = {"tower": tower, "projector": projector, "tokens": tokens, "tower_blocks": 1}
    p = tiny.train_params(**{**FRESH, "encoder": encoder, "seed": seed, **values})
    return new_object_encoder(tiny.family(tiny.unet()), p)


def test_a_fresh_encoder_has_the_tower_of_the_clip_model_and_repeats() -> None:
    first, second, other = fresh("mini"), fresh("mini"), fresh("mini", seed=4)
    tower = clip.load_tower("mini").state_dict()
    assert all(torch.equal(value, tower[name]) for name, value in first.vision.state_dict().items())
    new = {n: v for n, v in first.state_dict().items() if not n.startswith("injected")}  # these look as the base does
    assert all(torch.equal(v, second.state_dict()[n]) for n, v in new.items())
    assert not torch.equal(first.projection.image_embeds.weight, other.projection.image_embeds.weight)
    assert first.config["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("kind", ["dinov2", "siglip_vision_model"])
def test_towers_of_other_kinds_are_taken_as_they_are(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = new_tower({**TOWERS[kind.split("_")[0]]})
    model.save_pretrained(tmp_path)
    encoder = fresh(str(tmp_path), projector="full")
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in encoder.vision.state_dict().items())
    encoder.save_pretrained(tmp_path / "encoder")
    subject = torch.rand(1, 3, 32, 32)
    assert torch.equal(ObjectEncoder.from_pretrained(tmp_path / "encoder")(subject), encoder(subject))


def test_dinov2_sees_pictures_as_large_as_its_processor_makes_them(tmp_path: Path) -> None:
    new_tower(TOWERS["dinov2"]).save_pretrained(tmp_path)
    BitImageProcessor(crop_size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    encoder = fresh(str(tmp_path), projector="full", tokens=9)
    assert encoder.image_size == 48
    assert encoder(torch.zeros(1, 3, 48, 48)).shape == (1, 9, 16)


def test_an_earlier_encoders_tower_can_be_started_from(tmp_path: Path) -> None:
    earlier = tiny.object_encoder(tiny.unet(), "concat", mean=(0.1, 0.2, 0.3))
    earlier.save_pretrained(tmp_path)
    encoder = fresh(str(tmp_path), projector="resampler", tokens=2)
    assert all(torch.equal(v, earlier.vision.state_dict()[n]) for n, v in encoder.vision.state_dict().items())
    assert tuple(encoder.config["mean"]) == (0.1, 0.2, 0.3)


def test_a_model_that_is_no_tower_is_refused(tmp_path: Path) -> None:
    BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(TamingError, match=r"is a bert model. Name a CLIP, DINOv2 or SigLIP model"):
        fresh(str(tmp_path))


def test_reference_embeds_the_subject_as_its_latent_pixels() -> None:
    family = tiny.family(tiny.unet())
    vae, p = family.vae, tiny.train_params(**{**FRESH, "injection": "reference", "encoder": None})
    encoder = new_object_encoder(family, p)
    subject = torch.rand(2, 3, encoder.image_size, encoder.image_size) * 2 - 1
    z = encode_subjects(encoder, family, subject)
    assert z.shape == (2, 256, 4) == (2, encoder.config["tokens"], encoder.config["width"])
    assert torch.equal(z[1, 17], vae.encode(subject).latent_dist.mean[1, :, 1, 1] * vae.config["scaling_factor"])


def test_what_is_injected_starts_to_look_where_its_layer_looks() -> None:
    denoiser = tiny.unet()
    for design in ("decoupled", "gated", "reference"):
        for name, layer in tiny.object_encoder(denoiser, design).denoiser_layers().items():
            assert torch.equal(layer.to_k.weight, denoiser.get_submodule(name).to_k.weight)


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(
        TamingError, match=r"begins with 'middle'. Name some of down_blocks.0, down_blocks.1, mid_block"
    ):
        fresh("mini", layers=["mid_block", "middle"])
    assert {n.split(".")[0] for n in fresh("mini", layers=["mid_block"]).denoiser_layers()} == {"mid_block"}


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
