"""Adapters come out: inject and eject are inverses, zero-initialised ones change nothing, null means plain text."""

import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from taming_core.bases.family import Text
from taming_core.images.families import load_pipeline
from taming_core.model.attention import (
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
