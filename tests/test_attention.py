"""Adapters come out: inject and eject are inverses, zero-initialised ones change nothing, null means plain text."""

import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from taming_core.attention import DecoupledProcessor, contexts, cross_attentions, denoise, eject, inject, layer_channels
from taming_core.customize import load_pipeline

K = tiny.TOKENS
PRESENT = torch.tensor([True, False, True])


@pytest.fixture(scope="module")
def denoiser() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return tiny.unet()


def inputs(count: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, timesteps, text states, objects."""
    g = torch.Generator().manual_seed(1)
    latents, text = torch.randn(count, 4, 16, 16, generator=g), torch.randn(count, 7, 16, generator=g)
    return latents, torch.tensor([3, 500, 999])[:count], text, torch.randn(count, K, 16, generator=g)


def trained_layers(denoiser: UNet2DConditionModel) -> dict:
    """Decoupled layers as after some training: their values are no longer zero."""
    layers = tiny.object_encoder(denoiser, "decoupled").denoiser_layers()
    for layer in layers.values():
        torch.nn.init.normal_(layer.to_v.weight)
    return layers


@torch.no_grad()
def test_a_fresh_decoupled_encoder_leaves_the_denoiser_as_it_was(denoiser: UNet2DConditionModel) -> None:
    latents, t, text, objects = inputs()
    plain = denoiser(latents, t, text)[0]
    inject(denoiser, tiny.object_encoder(denoiser, "decoupled").denoiser_layers(), K)
    everyone = torch.ones(3, dtype=torch.bool)
    assert torch.equal(denoise(denoiser, latents, t, contexts(text, objects, everyone, "decoupled", K)), plain)
    eject(denoiser)


@torch.no_grad()
def test_eject_is_the_inverse_of_inject(denoiser: UNet2DConditionModel) -> None:
    latents, t, text, objects = inputs()
    plain, processors = denoiser(latents, t, text)[0], dict(denoiser.attn_processors)
    inject(denoiser, trained_layers(denoiser), K)
    parts = contexts(text, objects, torch.ones(3, dtype=torch.bool), "decoupled", K)
    assert not torch.allclose(denoise(denoiser, latents, t, parts), plain, atol=1e-3)
    eject(denoiser)
    assert torch.equal(denoiser(latents, t, text)[0], plain)
    assert {n: type(p) for n, p in denoiser.attn_processors.items()} == {n: type(p) for n, p in processors.items()}


@torch.no_grad()
@pytest.mark.parametrize("injection", ["concat", "decoupled"])
def test_null_samples_get_plain_text_to_image(denoiser: UNet2DConditionModel, injection: str) -> None:
    latents, t, text, objects = inputs()
    plain = denoiser(latents, t, text)[0]
    if injection == "decoupled":
        inject(denoiser, trained_layers(denoiser), K)
    nobody = torch.zeros(3, dtype=torch.bool)
    assert torch.equal(denoise(denoiser, latents, t, contexts(text, None, nobody, injection, K)), plain)
    mixed = denoise(denoiser, latents, t, contexts(text, objects[PRESENT], PRESENT, injection, K))
    torch.testing.assert_close(mixed[~PRESENT], plain[~PRESENT], atol=1e-5, rtol=1e-5)
    assert (mixed - plain)[PRESENT].abs().amax((1, 2, 3)).min() > 1e-3
    eject(denoiser)


@torch.no_grad()
@pytest.mark.parametrize("injection", ["concat", "decoupled"])
def test_each_sample_sees_its_own_object(denoiser: UNet2DConditionModel, injection: str) -> None:
    latents, t, text, objects = inputs()
    if injection == "decoupled":
        inject(denoiser, trained_layers(denoiser), K)
    mixed = denoise(denoiser, latents, t, contexts(text, objects[PRESENT], PRESENT, injection, K))
    for i in (0, 2):
        one = contexts(text[i : i + 1], objects[i : i + 1], torch.tensor([True]), injection, K)
        alone = denoise(denoiser, latents[i : i + 1], t[i : i + 1], one)
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1e-5, rtol=1e-5)
    eject(denoiser)


def test_every_layer_that_sees_the_context_is_found(denoiser: UNet2DConditionModel) -> None:
    channels = layer_channels(denoiser)
    assert channels["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] == 16
    assert channels["mid_block.attentions.0.transformer_blocks.0.attn2"] == 24
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn1" not in channels
    inject(denoiser, trained_layers(denoiser), K)
    assert all(isinstance(a.processor, DecoupledProcessor) for a in cross_attentions(denoiser).values())
    eject(denoiser)


@torch.no_grad()
def test_the_shipped_denoiser_gives_null_samples_plain_text() -> None:
    """Its first level attends to the context in both of its attentions, and diffusers masks only one of them."""
    pipeline = load_pipeline("mini")
    latents = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    t, present = torch.tensor([400, 700]), torch.tensor([True, False])
    text = pipeline.encode_text(["a photo of a <object>", "a photo of a dog"])
    parts = contexts(text, torch.ones(1, 256, 256), present, "concat", 256)
    plain = pipeline.unet(latents, t, text)[0]
    torch.testing.assert_close(denoise(pipeline.unet, latents, t, parts)[1], plain[1], atol=1e-4, rtol=1e-4)
