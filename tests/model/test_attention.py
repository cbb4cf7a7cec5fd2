"""Adapters come out: inject and eject are inverses, zero-initialised ones change nothing, null means plain text."""

from collections import Counter
from typing import Any

import pytest
import tiny
import torch
from base_pipelines import CALL, PROMPTS, tamed
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from tiny_bases import FAMILIES
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.images.families import load_pipeline
from taming_core.model.attention import (
    DecoupledLayer,
    DecoupledProcessor,
    ObjectProcessor,
    cross_attentions,
    eject,
    inject,
    layer_channels,
    record_attention,
    set_object_scale,
)
from taming_core.model.conditioning import (
    Conditioning,
    denoise,
    find_placeholders,
    group_by_design,
    reference_features,
    reference_group,
)

K, LENGTH = tiny.TOKENS, 7
PRESENT = torch.tensor([True, False, True])
EVERYONE, NOBODY = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
ADDING = ("decoupled", "gated", "reference")  # designs that start at nothing


@pytest.fixture
def denoiser() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return tiny.unet()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps, text states."""
    g = torch.Generator().manual_seed(1)
    latents, text = torch.randn(3, 4, 16, 16, generator=g), torch.randn(3, LENGTH, 16, generator=g)
    return latents, torch.tensor([3, 500, 999]), text


def embeddings(design: str, count: int = 3, objects: int = 1) -> Tensor:
    """Random objects: K tokens each, or the pixels of their latents."""
    shape = (256, 4) if design == "reference" else (K, 16)
    return torch.randn(count, objects, *shape, generator=torch.Generator().manual_seed(2))


def injected(
    denoiser: UNet2DConditionModel, design: str, trained: bool = True, layers: list[str] | None = None
) -> None:
    """Let the denoiser see objects; with the layers as after some training, no longer at nothing."""
    torch.manual_seed(3)
    encoder = tiny.object_encoder(denoiser, design, layers=layers)
    for layer in encoder.denoiser_layers().values() if trained else ():
        torch.nn.init.normal_(layer.to_v.weight)
        if design == "gated":
            torch.nn.init.ones_(layer.gate)
    inject(denoiser, design, encoder.denoiser_layers(), encoder.config["layers"], LENGTH)


@torch.no_grad()
def said(
    denoiser: UNet2DConditionModel, design: str, present: Tensor, objects: Tensor | None, rows: slice = slice(None)
):
    """What the denoiser says of some samples."""
    latents, t, text = (x[rows] for x in inputs())
    told = Conditioning(Text(text, None), torch.full((len(text), 1), 3), present, objects)
    if design != "reference":
        return denoise(tiny.family(denoiser), latents, t, group_by_design(told, design))
    features = None
    if objects is not None:
        noised = objects.unflatten(2, (16, 16)).permute(0, 1, 4, 2, 3)
        silence = Text(torch.zeros(1, LENGTH, 16), None)
        features = reference_features(tiny.family(denoiser), noised, t[present], silence)
    return denoise(tiny.family(denoiser), latents, t, [reference_group(told, features)])


def plain(denoiser: UNet2DConditionModel) -> Tensor:
    with torch.no_grad():
        return denoiser(*inputs())[0]


@pytest.mark.parametrize("design", ADDING)
def test_a_fresh_design_leaves_the_denoiser_as_it_was_to_the_bit(denoiser: UNet2DConditionModel, design: str) -> None:
    before = plain(denoiser)
    injected(denoiser, design, trained=False)
    assert torch.equal(said(denoiser, design, EVERYONE, embeddings(design)), before)


@pytest.mark.parametrize("design", tiny.DESIGNS)
def test_eject_is_the_inverse_of_inject(denoiser: UNet2DConditionModel, design: str) -> None:
    before, processors = plain(denoiser), dict(denoiser.attn_processors)
    injected(denoiser, design, layers=None if design == "substitute" else ["mid_block", "up_blocks"])
    assert not torch.allclose(said(denoiser, design, EVERYONE, embeddings(design)), before, atol=1e-3)
    eject(denoiser)
    assert torch.equal(plain(denoiser), before)
    assert dict(denoiser.attn_processors) == processors  # the very objects


@pytest.mark.parametrize("design", tiny.DESIGNS)
def test_null_samples_get_plain_text_to_image(denoiser: UNet2DConditionModel, design: str) -> None:
    before = plain(denoiser)
    injected(denoiser, design)
    assert torch.equal(said(denoiser, design, NOBODY, None), before)
    mixed = said(denoiser, design, PRESENT, embeddings(design, 2))
    torch.testing.assert_close(mixed[~PRESENT], before[~PRESENT], atol=1e-5, rtol=1e-5)
    assert (mixed - before)[PRESENT].abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("design", tiny.DESIGNS)
def test_each_sample_sees_its_own_objects(denoiser: UNet2DConditionModel, design: str, objects: int) -> None:
    injected(denoiser, design)
    z = embeddings(design, 2, objects)
    mixed = said(denoiser, design, PRESENT, z)
    for place, i in enumerate((0, 2)):
        alone = said(denoiser, design, torch.tensor([True]), z[place : place + 1], slice(i, i + 1))
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def outputs(denoiser: UNet2DConditionModel, design: str, objects: Tensor) -> dict[str, Tensor]:
    """What every attention layer that could see the object makes of it."""
    found: dict[str, Tensor] = {}
    hooks = [
        denoiser.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: found.update({n: out}))
        for n in layer_channels(denoiser, design)
    ]
    said(denoiser, design, EVERYONE, objects)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("design", ["concat", "decoupled", "gated", "reference"])
def test_only_the_chosen_layers_see_the_object(denoiser: UNet2DConditionModel, design: str) -> None:
    injected(denoiser, design, layers=["up_blocks"])
    z = embeddings(design)
    first, second = (outputs(denoiser, design, objects) for objects in (z, z.roll(1, 0)))
    told = {name for name, out in first.items() if not torch.equal(out, second[name])}
    # What stands before the first chosen layer knows nothing of the object.
    assert told == {name for name in first if name.startswith("up_blocks")}


def test_substitute_leaves_out_the_state_of_the_placeholder(denoiser: UNet2DConditionModel) -> None:
    _, _, text = inputs()
    told = Conditioning(Text(text, None), torch.tensor([[2], [4], [6]]), EVERYONE, embeddings("substitute"))
    states = group_by_design(told, "substitute")[0].text.states
    assert states.shape == (3, LENGTH - 1 + K, 16)
    assert torch.equal(states[1, :6], text[1, [0, 1, 2, 3, 5, 6]])
    assert torch.equal(states[:, 6:], told.object_embeds[:, 0])


def test_the_state_that_is_left_out_changes_nothing(denoiser: UNet2DConditionModel) -> None:
    latents, t, text = inputs()
    other = text.clone()
    other[:, 3] = 9.0
    z = embeddings("substitute")
    holes = torch.full((3, 1), 3)
    with torch.no_grad():
        found = [
            denoise(
                tiny.family(denoiser),
                latents,
                t,
                group_by_design(Conditioning(Text(x, None), holes, EVERYONE, z), "substitute"),
            )
            for x in (text, other)
        ]
    assert torch.equal(*found)


def test_places_are_those_of_the_placeholders_or_the_end() -> None:
    ids = torch.tensor([[1, 9, 5, 9, 0], [1, 5, 5, 0, 0], [1, 5, 9, 0, 0]])
    assert find_placeholders(ids, 9, 1).tolist() == [[1], [4], [2]]
    assert find_placeholders(ids, 9, 2).tolist() == [[1, 3], [3, 4], [2, 4]]
    assert find_placeholders(ids, 9, 0).shape == (3, 0)


def test_a_weight_scales_what_a_design_adds(denoiser: UNet2DConditionModel) -> None:
    before = plain(denoiser)
    injected(denoiser, "decoupled")
    set_object_scale(denoiser, 0.0)
    assert torch.equal(said(denoiser, "decoupled", EVERYONE, embeddings("decoupled")), before)
    set_object_scale(denoiser, 1.0)
    assert not torch.allclose(said(denoiser, "decoupled", EVERYONE, embeddings("decoupled")), before, atol=1e-3)


@pytest.mark.parametrize("design", ["substitute", "concat"])
def test_the_share_of_attention_is_that_of_the_objects_tokens(denoiser: UNet2DConditionModel, design: str) -> None:
    latents, t, text = inputs()
    told = Conditioning(Text(text, None), torch.full((3, 1), 3), PRESENT, 100 * embeddings(design, 2))
    shares: list[Tensor] = []
    before = said(denoiser, design, PRESENT, told.object_embeds)
    with torch.no_grad():
        found = denoise(tiny.family(denoiser), latents, t, group_by_design(told, design), shares)
    assert torch.equal(found, before)  # watching changes nothing
    assert len(shares) == len(cross_attentions(denoiser))
    assert {tuple(s.shape) for s in shares} == {(2, 256), (2, 64)}
    assert all(0 <= s.min() <= s.max() <= 1 + 1e-6 for s in shares)
    even = Conditioning(
        Text(torch.zeros_like(text), None), told.placeholder_positions, PRESENT, torch.zeros_like(told.object_embeds)
    )
    with torch.no_grad():
        denoise(tiny.family(denoiser), latents, t, group_by_design(even, design), shares := [])
    of_all = K / (K + LENGTH - (design == "substitute"))  # all alike: each token has an equal share
    assert all(torch.allclose(s, torch.full_like(s, of_all)) for s in shares)


def test_watching_ends_even_where_something_breaks(denoiser: UNet2DConditionModel) -> None:
    processors = dict(denoiser.attn_processors)
    with pytest.raises(ZeroDivisionError), record_attention(denoiser, K):
        _ = 1 / 0
    assert dict(denoiser.attn_processors) == processors


def test_every_layer_that_sees_the_context_is_found(denoiser: UNet2DConditionModel) -> None:
    channels = layer_channels(denoiser, "decoupled")
    assert channels["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] == 16
    assert channels["mid_block.attentions.0.transformer_blocks.0.attn2"] == 24
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn1" not in channels
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn1" in layer_channels(denoiser, "reference")
    injected(denoiser, "decoupled")
    assert all(isinstance(a.processor, ObjectProcessor) for a in cross_attentions(denoiser).values())


@torch.no_grad()
def test_the_shipped_denoiser_gives_null_samples_plain_text() -> None:
    """Its first level attends to the context in both of its attentions, and diffusers masks only one of them."""
    pipeline = load_pipeline("mini")
    latents = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    t, present = torch.tensor([400, 700]), torch.tensor([True, False])
    text = pipeline.encode_text(["a photo of a <object>", "a photo of a dog"])
    told = Conditioning(text, torch.zeros(2, 1, dtype=torch.long), present, torch.ones(1, 1, 256, 256))
    plain = pipeline.unet(latents, t, text.states)[0]
    torch.testing.assert_close(
        denoise(pipeline.family, latents, t, group_by_design(told, "concat"))[1], plain[1], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_text_and_object_have_one_query_and_one_output_projection(family: str) -> None:
    pipeline = tamed(family, "decoupled")
    calls: Counter[str] = Counter()
    names = list(pipeline.object_encoder.denoiser_layers())
    for name in names:
        for part in ("to_q", "to_out.0"):
            pipeline.family.denoiser.get_submodule(f"{name}.{part}").register_forward_hook(
                lambda *_, key=f"{name}.{part}": calls.update([key])
            )
    call = {**CALL, "guidance_object": 1.0, "guidance_text": 1.0, "output_type": "latent", "num_inference_steps": 1}
    pipeline(PROMPTS, **call, object_embeds=torch.ones(2, 3, pipeline.family.width))
    assert set(calls) == {f"{name}.{part}" for name in names for part in ("to_q", "to_out.0")}
    assert set(calls.values()) == {1}


def layer_and_states(**how: Any) -> tuple[Attention, DecoupledLayer, Tensor, Tensor, Tensor]:
    """A cross-attention, the layer of an object in it, pixels, text and object."""
    torch.manual_seed(5)
    attn = Attention(16, cross_attention_dim=12, heads=2, dim_head=8, out_dim=16, **how)
    layer = DecoupledLayer(12, 16)
    torch.nn.init.normal_(layer.to_v.weight)
    return attn, layer, torch.randn(2, 9, 16), torch.randn(2, 5, 12), torch.randn(2, 3, 12)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"bias": True},
    {"norm_num_groups": 4},
    {"residual_connection": True, "rescale_output_factor": 2.0},
    {"cross_attention_norm": "layer_norm"},
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("how", VARIANTS, ids=lambda how: next(iter(how), "plain"))
def test_it_computes_what_the_ip_adapter_of_diffusers_does(how: dict[str, Any], masked: bool) -> None:
    attn, layer, pixels, text, objects = layer_and_states(**how)
    theirs = IPAdapterAttnProcessor2_0(16, 12, num_tokens=(3,), scale=0.7)
    theirs.to_k_ip, theirs.to_v_ip = torch.nn.ModuleList([layer.to_k]), torch.nn.ModuleList([layer.to_v])
    ours = DecoupledProcessor(attn.processor, 5, layer)
    ours.scale = 0.7
    mask = torch.zeros(2, 1, 5).index_fill(2, torch.tensor([4]), -10000.0) if masked else None
    with torch.no_grad():
        expected = theirs(attn, pixels, (text, [objects]), attention_mask=mask)
        found = ours(attn, pixels, torch.cat([text, objects], 1), attention_mask=mask)
        assert torch.equal(found, expected)
        assert not torch.allclose(found, attn.processor(attn, pixels, text, attention_mask=mask), atol=1e-2)


def test_behind_a_processor_of_another_kind_the_object_is_projected_by_itself() -> None:
    class OtherProcessor(AttnProcessor2_0):
        """Might not use the layer's projections."""

    attn, layer, pixels, text, objects = layer_and_states(rescale_output_factor=2.0)
    context = torch.cat([text, objects], 1)
    with torch.no_grad():
        apart = DecoupledProcessor(OtherProcessor(), 5, layer)(attn, pixels, context)
        shared = DecoupledProcessor(AttnProcessor2_0(), 5, layer)(attn, pixels, context)
    torch.testing.assert_close(apart, shared, atol=1e-6, rtol=1e-6)
    assert not torch.equal(apart, AttnProcessor2_0()(attn, pixels, text))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_an_object_of_zeros_is_exactly_nothing_in_half_precision(kind: torch.dtype) -> None:
    attn, layer, pixels, text, objects = layer_and_states(bias=True)
    context = torch.cat([text, torch.zeros_like(objects)], 1)
    with torch.no_grad(), torch.autocast("cpu", kind):
        found = DecoupledProcessor(attn.processor, 5, layer)(attn, pixels, context)
        assert torch.equal(found, attn.processor(attn, pixels, text))
