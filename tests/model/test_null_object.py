"""A sample without an object gets the base model's output to the bit, in every design, family and precision."""

import pytest
import tiny
import tiny_bases
import torch
from base_pipelines import tamed
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.images.families import TamingPipeline, assemble
from taming_core.model.attention import eject
from taming_core.model.conditioning import Conditioning, denoise
from taming_core.model.subject_model import conditioning_groups, subject_model

CASES = [
    *((family, design) for family in ("sd15", "sdxl") for design in tiny.DESIGNS),
    *((family, design) for family in ("sd3", "flux") for design in ("concat", "decoupled")),
]
PRESENT = torch.tensor([True, False, True])


def trained(family: str, design: str) -> TamingPipeline:
    """A pipeline with layers as after some training, no longer at nothing; biases have no round numbers."""
    torch.manual_seed(4)
    if design == "reference":
        parts = tiny_bases.parts(family)
        pipeline = assemble(parts, tiny.object_encoder(parts["unet"], design))
    else:
        pipeline = tamed(family, design)
    for layer in pipeline.object_encoder.denoiser_layers().values():
        torch.nn.init.normal_(layer.get_submodule("to_v").weight)
        if design == "gated":
            torch.nn.init.ones_(layer.get_parameter("gate"))
    with torch.no_grad():
        for name, weight in pipeline.denoiser.named_parameters():
            if name.endswith("to_out.0.bias"):
                weight.normal_()
    return pipeline


def inputs(pipeline: TamingPipeline) -> tuple[Tensor, Tensor, Text, float | None]:
    """Latents, timesteps, text and guidance of three samples."""
    family = pipeline.family
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(3, family.latent_channels, 16, 16, generator=g)
    text = family.text(family.token_ids(["a photo of a <object>", "a cat", "a <object> in the snow"]))
    return latents, torch.tensor([3, 500, 999]), text, 2.0 if family.reads_guidance else None


def objects(pipeline: TamingPipeline, count: int) -> Tensor:
    config = pipeline.object_encoder.config
    shape = (config["tokens"], config["width"])
    return torch.randn(count, 1, *shape, generator=torch.Generator().manual_seed(2))


def outputs(pipeline: TamingPipeline, dtype: torch.dtype, weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The base's output, and that for the second sample alone, since a matrix product's last bits depend on its size.

    Then that of the design without any object, and with objects in the first and third sample. Computed under autocast,
    or with `weights` of that type.
    """
    if weights:
        pipeline.to(dtype)
    latents, times, text, guidance = inputs(pipeline)
    z = objects(pipeline, 2)
    if weights:
        latents, z = latents.to(dtype), z.to(dtype)
    model = subject_model(pipeline.components)
    positions = torch.full((3, 1), 3)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=not weights):
        found = [
            denoise(
                model.family,
                latents,
                times,
                conditioning_groups(model, told, times, (latents.shape[2], latents.shape[3])),
                guidance=guidance,
            )
            for told in (
                Conditioning(text, positions, torch.zeros(3, dtype=torch.bool), None),
                Conditioning(text, positions, PRESENT, z),
            )
        ]
        eject(pipeline.denoiser)
        plain = model.family.predict(latents, times, text, guidance)
        second = text.map(lambda x: x[~PRESENT])
        alone = model.family.predict(latents[~PRESENT], times[~PRESENT], second, guidance)
    return plain, alone, found[0], found[1]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "design"), CASES)
def test_no_object_is_exactly_nothing(family: str, design: str, dtype: torch.dtype, weights: bool) -> None:
    plain, alone, without, mixed = outputs(trained(family, design), dtype, weights)
    assert torch.equal(without, plain)
    assert torch.equal(mixed[~PRESENT], alone if design in ("substitute", "concat") else plain[~PRESENT])
    assert (mixed - plain)[PRESENT].abs().amax((1, 2, 3)).min() > 1e-3
