"""Several objects in one image: each object's tokens are bound to its own `<object>`."""

from dataclasses import replace
from typing import Any

import base_pipelines
import pytest
import tiny
import torch
from tiny import DESIGNS

from taming_core.errors import TamingError
from taming_core.exports.ip_adapter import require_exportable
from taming_core.images.families import TamingPipeline
from taming_core.model.inputs import Batch, EncoderInputs
from taming_core.model.subject_model import predict, subject_model

TWO = "a photo of a <object> on a <object>"
CALL: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "guidance_text": 2.0, "guidance_object": 2.0}
TRANSFORMERS = [(family, design) for family in ("sd3", "flux") for design in ("concat", "decoupled")]


def pipeline(design: str, binding: str | None) -> TamingPipeline:
    """With layers as after some training; `binding` is none, `untrained` or `trained`."""
    made = tiny.pipeline(design)
    return with_binding(made, binding)


def with_binding(made: TamingPipeline, binding: str | None) -> TamingPipeline:
    torch.manual_seed(8)
    for layer in made.object_encoder.denoiser_layers().values():
        torch.nn.init.normal_(layer.to_v.weight, std=0.3)
        if hasattr(layer, "gate"):
            torch.nn.init.ones_(layer.gate)
    if binding is not None:
        made.object_encoder.add_binding(made.family.width)
    for bound in made.object_encoder.bindings.values() if binding == "trained" else ():
        torch.nn.init.normal_(bound.linear.weight)
    return made


def embeds_of(made: TamingPipeline) -> torch.Tensor:
    shape = (256, 4) if made.injection == "reference" else (3, made.family.width)
    return torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(2))


def swap_difference(made: TamingPipeline) -> float:
    """How far the latents change, relative to their size, when two objects change places."""
    embeds, call = embeds_of(made), CALL
    if not made.family.reads_guidance and made.family.denoiser_name == "transformer":
        call = {**CALL, "height": 32, "width": 32}
    first, second = (
        made(TWO, object_embeds=e, generator=torch.Generator().manual_seed(0), **call).images
        for e in (embeds, embeds.flip(1))
    )
    return float((first - second).abs().mean() / first.abs().mean())


@pytest.mark.parametrize("design", DESIGNS)
def test_the_order_of_two_objects_matters_to_an_encoder_that_binds(design: str) -> None:
    assert swap_difference(pipeline(design, None)) < 1e-5  # attention has no order
    assert swap_difference(pipeline(design, "untrained")) < 1e-5
    assert swap_difference(pipeline(design, "trained")) > 1e-3


@pytest.mark.parametrize(("family", "design"), TRANSFORMERS)
def test_it_matters_in_transformers_too(family: str, design: str) -> None:
    bound, unbound = (with_binding(base_pipelines.tamed(family, design), b) for b in ("trained", "untrained"))
    order, none = swap_difference(bound), swap_difference(unbound)
    assert none < 1e-6
    assert order > 10 * none


@pytest.mark.parametrize("design", DESIGNS)
def test_an_untrained_binding_changes_no_bit(design: str) -> None:
    call = {**CALL, "generator": torch.Generator()}
    made = pipeline(design, None)
    before = made(TWO, object_embeds=embeds_of(made), **{**call, "generator": torch.manual_seed(1)}).images
    made.object_encoder.add_binding(made.family.width)
    embeds = embeds_of(made)
    assert torch.equal(made(TWO, object_embeds=embeds, **{**call, "generator": torch.manual_seed(1)}).images, before)


def test_a_prompt_without_placeholder_binds_nothing() -> None:
    made = pipeline("concat", "trained")
    one = embeds_of(made)[:, :1]
    plain, bound = (
        made("a photo of a dog", object_embeds=one, generator=torch.manual_seed(1), num_inference_steps=1,
             guidance_text=1.0, guidance_object=1.0, output_type="latent").images
        for made in (pipeline("concat", None), made)
    )  # fmt: skip
    assert torch.equal(plain, bound)


def batch_of(made: TamingPipeline, counts: tuple[int, ...]) -> Batch:
    g, side, n = torch.Generator().manual_seed(4), made.object_encoder.image_size, len(counts)
    prompts = [{0: "a photo of a dog", 1: "a photo of a <object>", 2: TWO}[count] for count in counts]
    return Batch(
        row_ids=("",) * n, target=None, mask=torch.zeros(n, 1, 32, 32), tokens=made.family.token_ids(prompts),
        object_counts=counts, subject=torch.randn(n, 2, 2, 3, side, side, generator=g).clamp(-1, 1),
        view=torch.zeros(n, 3, 1, 1), frame=torch.zeros(n, 4),
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("design", DESIGNS)
def test_samples_with_no_one_and_two_objects_share_a_batch(design: str) -> None:
    made = pipeline(design, "trained")
    model, counts = subject_model(made.components), (1, 2, 0, 2, 1)
    batch = batch_of(made, counts)
    latents, times = (
        torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(5)),
        torch.tensor([9, 99, 500, 700, 900]),
    )
    together = predict(model, latents, times, batch).output
    for i, count in enumerate(counts):
        alone = replace(
            batch, row_ids=("",), object_counts=(count,),
            **{name: getattr(batch, name)[i : i + 1] for name in ("tokens", "subject", "mask", "view", "frame")},
        )  # fmt: skip
        one = predict(model, latents[i : i + 1], times[i : i + 1], alone).output
        torch.testing.assert_close(together[i : i + 1], one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("design", DESIGNS)
def test_training_reaches_the_binding(design: str) -> None:
    made = pipeline(design, "untrained")
    model, batch = subject_model(made.components), batch_of(made, (2, 1))
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    predict(model, latents, torch.tensor([99, 500]), batch).output.square().mean().backward()
    for bound in made.object_encoder.bindings.values():
        assert bound.linear.weight.grad is not None
        assert bound.linear.weight.grad.abs().max() > 0


def test_the_empty_prompt_holds_a_placeholder_for_each_object_that_is_bound() -> None:
    config = {"background": "removed", "injection": "concat"}
    assert EncoderInputs.of({**config, "binding": None}).empty_prompt_for(2) == ""  # not "and"
    assert EncoderInputs.of({**config, "binding": 16}).empty_prompt_for(2) == "<object> and <object>"
    assert EncoderInputs.of({**config, "injection": "substitute"}).empty_prompt_for(1) == "<object>"


def test_an_ip_adapter_cannot_hold_it() -> None:
    made = base_pipelines.tamed("sd15", "decoupled")
    require_exportable(made.object_encoder, made.denoiser)
    made.object_encoder.add_binding(made.family.width)
    with pytest.raises(TamingError, match=r"train\.binding"):
        require_exportable(made.object_encoder, made.denoiser)
