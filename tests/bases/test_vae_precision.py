"""The autoencoder runs in its own precision wherever it encodes or decodes: SDXL's overflows in fp16."""

from typing import Any

import numpy as np
import pytest
import tiny
import tiny_bases
import torch
from PIL import Image
from torch import Tensor

from taming_core.bases.families import family_of
from taming_core.images.families import TamingPipeline, assemble
from taming_core.model.object_encoder import encode_subjects
from taming_core.model.subject_model import latent_posterior, subject_model

LOUD = 1e5  # activations after the first convolution exceed the largest fp16 number, 65504


def loud(vae: Any) -> Any:
    """The autoencoder with first layers whose output fp16 cannot hold, and norms that undo it, as in SDXL's."""
    with torch.no_grad():
        for layer in (vae.encoder.conv_in, vae.decoder.conv_in):
            layer.weight.mul_(LOUD).clamp_(-6e4, 6e4)
    return vae


def pipeline(family: str = "sdxl") -> TamingPipeline:
    """A pipeline of the design `reference`, whose embedding is what the autoencoder makes of the subject."""
    parts = tiny_bases.parts(family)
    loud(parts["vae"])
    made = assemble(parts, tiny.object_encoder(parts["unet"], "reference"))
    made.set_progress_bar_config(disable=True)
    return made


def subject() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 4), np.uint8)
    return Image.fromarray(pixels)


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def expected() -> Tensor:
    """In float32."""
    return pipeline().encode_objects([subject()])


def test_a_plain_fp16_autoencoder_overflows() -> None:
    vae = loud(tiny_bases.parts("sdxl")["vae"]).half()
    assert not vae.encode(images().half()).latent_dist.mean.isfinite().all()


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_pipeline_in_fp16_encodes_its_subject_as_one_in_fp32_does(family: str) -> None:
    expected = pipeline(family).encode_objects([subject()])
    found = pipeline(family).to(torch.float16)
    embeds = found.encode_objects([subject()])
    assert embeds.dtype == torch.float16
    torch.testing.assert_close(embeds.float(), expected, atol=5e-3, rtol=5e-3)
    assert found.vae.dtype == torch.float16  # as it was


def test_an_autoencoder_in_fp32_stays_there_beside_a_denoiser_in_fp16(expected: Tensor) -> None:
    found = pipeline().to(torch.float16)
    found.vae.to(torch.float32)
    torch.testing.assert_close(found.encode_objects([subject()]).float(), expected, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_reach_an_autoencoder_in_fp32(dtype: torch.dtype) -> None:
    parts = tiny_bases.parts("sdxl")
    loud(parts["vae"])
    encoder, family = tiny.object_encoder(parts["unet"], "reference"), family_of(parts)
    expected = encode_subjects(encoder, family, images())
    with torch.autocast("cpu", dtype):
        found = encode_subjects(encoder, family, images())
    assert torch.equal(found, expected)


def test_latents_and_images_of_an_fp16_autoencoder_are_those_of_fp32() -> None:
    model = subject_model(pipeline().components)
    mean, _ = latent_posterior(model, images())
    decoded = model.family.decode(mean)
    model.family.vae.half()
    torch.testing.assert_close(latent_posterior(model, images())[0].float(), mean, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(model.family.decode(mean.half()).float(), decoded, atol=5e-3, rtol=5e-3)
