"""Every family of base models does what diffusers' own pipeline does, until an object is shown."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_bases
import torch
from base_pipelines import CALL, GUIDED, OURS, PROMPTS, params, seeds, tamed
from tiny_bases import FAMILIES

from taming_core.bases.families import family_class, family_of
from taming_core.bases.flux import pack_latents, unpack_latents
from taming_core.bases.load import load_base
from taming_core.errors import TamingError
from taming_core.images.draw import load_scheduler
from taming_core.images.families import TamingPipeline
from taming_core.language.placeholder import OBJECT
from taming_core.model.subject_model import require_size, subject_model, unfreeze
from taming_core.tables import schema
from taming_core.tables.rows import load_rows
from taming_core.training import loop
from taming_core.training.batches import ExampleSource, batch_at
from taming_core.training.start import require_design, require_losses


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_object_it_draws_what_diffusers_draws(family: str) -> None:
    parts = tiny_bases.parts(family)
    theirs = tiny_bases.stock(family, parts)(PROMPTS, **CALL, **GUIDED[family], generator=seeds()).images
    for injection in ("concat", "decoupled"):
        ours = tamed(family, injection, parts)(PROMPTS, **CALL, **OURS[family], generator=seeds()).images
        assert ours.shape == theirs.shape == (2, 32, 48, 3)
        assert np.abs(ours - theirs).max() < 2e-5
    assert theirs.std() > 0.01  # there is something to compare


@pytest.mark.parametrize("family", FAMILIES)
def test_an_object_changes_nothing_of_decoupled_before_training_and_much_of_concat(family: str) -> None:
    subject = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(1))
    call = {**CALL, "guidance_object": 1.0, "guidance_text": 1.0, "output_type": "latent"}
    for injection in ("decoupled", "concat"):
        pipeline = tamed(family, injection)
        embeds = subject.new_zeros(2, 3, pipeline.family.width) + subject[..., :1]
        plain = pipeline(PROMPTS, **call, generator=seeds()).images
        shown = pipeline(PROMPTS, **call, generator=seeds(), object_embeds=embeds).images
        assert torch.equal(plain, shown) == (injection == "decoupled")
        if injection == "decoupled":  # with values of its own it does
            for layer in pipeline.object_encoder.denoiser_layers().values():
                torch.nn.init.normal_(layer.get_submodule("to_v").weight)
            taught = pipeline(PROMPTS, **call, generator=seeds(), object_embeds=embeds).images
            assert (taught - plain).abs().mean() > 1e-3


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_words_after_the_placeholder_reach_the_pooled_embedding(family: str, tmp_path: Path) -> None:
    """Published configs have eos_token_id 2, for which transformers pools at the highest id: that of `<object>`."""
    pipeline = tamed(family, "decoupled")
    stock = tiny_bases.stock(family, {n: c for n, c in pipeline.components.items() if n != "object_encoder"})
    stock.save_pretrained(tmp_path)
    ids = pipeline.family.token_ids(["a <object> on the beach", "a <object> in outer space"])
    reloaded = family_of(load_base(str(tmp_path)))
    for of in (pipeline.family, reloaded):  # what is saved is right for stock diffusers, too
        beach, space = of.text(ids).pooled
        assert (beach - space).abs().max() > 0.01
        ends = [(row == of.tokenizers[0].eos_token_id).int().argmax() for row in of.split_token_ids(ids)[0]]
        assert [int(e) for e in ends] == [6, 6]


def test_the_tiny_clips_have_the_ids_of_published_ones() -> None:
    parts = tiny_bases.parts("sdxl")
    for name in ("", "_2"):
        tokenizer, config = parts[f"tokenizer{name}"], parts[f"text_encoder{name}"].config
        assert config.eos_token_id == 2
        assert tokenizer.eos_token_id == len(tokenizer) - 1 == config.vocab_size - 1
        assert tokenizer.bos_token_id == len(tokenizer) - 2
        assert OBJECT not in tokenizer.get_vocab()


def test_a_decoupled_layer_stands_wherever_image_and_text_meet() -> None:
    layers = {f: set(tamed(f, "decoupled").object_encoder.denoiser_layers()) for f in ("sdxl", "sd3", "flux")}
    assert len(layers["sdxl"]) == 2 + 2 * 2 + 2  # two blocks in each transformer: down, up twice, mid
    assert layers["sd3"] == {f"transformer_blocks.{i}.attn" for i in range(3)}
    assert layers["flux"] == {"transformer_blocks.0.attn", "transformer_blocks.1.attn"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_base_is_loaded_in_its_own_classes(family: str, tmp_path: Any) -> None:
    loaded, parts = load_base(tiny_bases.saved(family, tmp_path / family)), tiny_bases.parts(family)
    assert set(loaded) == set(parts)
    assert {n: type(p) for n, p in loaded.items() if isinstance(p, torch.nn.Module)} == {
        n: type(p) for n, p in parts.items() if isinstance(p, torch.nn.Module)
    }
    assert type(loaded["scheduler"]) is type(parts["scheduler"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_pipeline_opens_as_its_own_family(family: str, tmp_path: Any) -> None:
    pipeline = tamed(family, "decoupled")
    pipeline.save_pretrained(tmp_path)
    again = TamingPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again) is type(pipeline)
    first, second = (
        p(PROMPTS, **CALL, **OURS[family], generator=seeds()).images for p in (pipeline, again)
    )  # fmt: skip
    assert np.abs(first - second).max() < 1e-5


def test_sd3_does_without_t5(tmp_path: Any) -> None:
    parts = {**tiny_bases.parts("sd3"), "text_encoder_3": None, "tokenizer_3": None}
    tiny_bases.stock("sd3", parts).save_pretrained(tmp_path)
    loaded = load_base(str(tmp_path))
    assert "text_encoder_3" not in loaded
    theirs = tiny_bases.stock("sd3", parts)(PROMPTS, **CALL, guidance_scale=4.0, generator=seeds()).images
    ours = tamed("sd3", "concat", loaded)(PROMPTS, **CALL, guidance_text=4.0, generator=seeds()).images
    assert np.abs(ours - theirs).max() < 2e-5


@pytest.mark.parametrize(
    ("family", "encoders"),
    [
        ("sd15", {"text_encoder"}),
        ("sdxl", {"text_encoder", "text_encoder_2"}),
        ("sd3", {"text_encoder", "text_encoder_2"}),
        ("flux", {"text_encoder"}),
    ],
)
def test_the_rate_of_the_text_encoders_trains_clip_and_never_t5(family: str, encoders: set[str]) -> None:
    model = subject_model(tamed(family, "concat").components)
    trained = unfreeze(model, params(family, "concat", tune="whole", text_encoder_rate=0.1))
    assert trained.keys() == {"object_encoder", "denoiser", *encoders}
    for name in encoders:
        assert trained[name].keys() == dict(model.networks[name].named_parameters()).keys()
    frozen = model.family.text_encoders.keys() - encoders
    assert not any(w.requires_grad for name in frozen for w in model.networks[name].parameters())


def test_packing_is_undone() -> None:
    latents = torch.randn(2, 4, 6, 8)
    patches = pack_latents(latents)
    assert patches.shape == (2, 12, 16)
    assert torch.equal(unpack_latents(patches, 6, 8), latents)


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [
        ("sd3", "FlowMatchHeunDiscreteScheduler"),
        ("sd3", "DPMSolverMultistepScheduler"),
        ("flux", "DPMSolverMultistepScheduler"),
    ],
)
def test_flow_matching_draws_with_other_schedulers(family: str, scheduler: str) -> None:
    pipeline = tamed(family, "concat")
    pipeline.scheduler = load_scheduler(scheduler, pipeline.scheduler)
    images = pipeline(PROMPTS, **{**CALL, "num_inference_steps": 4}, generator=seeds()).images
    assert np.isfinite(images).all()


def test_schedulers_of_the_other_kind_are_refused() -> None:
    flow, added = tiny_bases.parts("flux")["scheduler"], tiny_bases.parts("sd15")["scheduler"]
    with pytest.raises(TamingError, match="DDIMScheduler does not support flow-matching models"):
        load_scheduler("DDIMScheduler", flow)
    with pytest.raises(TamingError, match="does not support dynamic shifting"):
        load_scheduler("FlowMatchHeunDiscreteScheduler", flow)
    with pytest.raises(TamingError, match="FlowMatchEulerDiscreteScheduler is for flow-matching models"):
        load_scheduler("FlowMatchEulerDiscreteScheduler", added)


@pytest.mark.parametrize("injection", ["substitute", "gated", "reference"])
def test_a_transformer_has_no_place_for_some_designs(injection: str) -> None:
    p = params("flux", injection, **({"encoder": None} if injection == "reference" else {}))
    with pytest.raises(TamingError, match=f"cannot be {injection} .* Use one of concat, decoupled"):
        require_design(family_of(tiny_bases.parts("flux")), p)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("min_snr", 5.0, "Set train.min_snr to null"),
        ("zero_terminal_snr", True, "Set train.zero_terminal_snr to false"),
        ("timestep_power", 3.0, r"Set train.timestep_power to 1\.0"),
        ("localization_weight", 0.1, "localization_weight must be 0"),
    ],
)
def test_what_has_no_effect_on_flow_matching_is_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(TamingError, match=words):
        require_losses(tamed("sd3", "concat"), params("sd3", "concat", **{key: value}))


def test_a_guidance_distilled_base_trains_at_a_scale_that_is_named_and_others_at_none() -> None:
    with pytest.raises(TamingError, match=r"reads the guidance scale .* Set train\.guidance to it, such as 3\.5"):
        require_losses(tamed("flux", "concat"), params("flux", "concat"))
    with pytest.raises(TamingError, match=r"train\.guidance has no effect on this base.* Set it to null"):
        require_losses(tamed("sd3", "concat"), params("sd3", "concat", guidance=3.5))
    for guidance in (3.5, [1.0, 5.0]):
        require_losses(tamed("flux", "concat"), params("flux", "concat", guidance=guidance))


def test_flux_trains_at_the_guidance_of_the_params_not_at_1(tmp_path: Any) -> None:
    model = subject_model(tamed("flux", "concat").components)
    seen: list[torch.Tensor] = []
    model.family.denoiser.time_text_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    rows = load_rows(tiny.write_rows(tmp_path), "train")
    off = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None, "steps": 3}
    for guidance in (3.5, [2.0, 5.0]):
        p = params("flux", "concat", guidance=guidance, **off)
        run = loop.start_run(model, None, loop.accelerator_for("cpu", "fp32"), p)
        list(loop.train(run, p, partial(batch_at, source=ExampleSource.of(model, rows, p))))
    scales = torch.cat(seen) / 1000  # as the transformer embeds them
    fixed, drawn = scales[: len(scales) // 2], scales[len(scales) // 2 :]
    torch.testing.assert_close(fixed, torch.full_like(fixed, 3.5))
    assert ((drawn > 2.0) & (drawn < 5.0)).all()
    assert len(set(drawn.tolist())) == len(drawn)


def test_sdxl_trains_with_the_true_size_and_crop_and_draws_whole_images(tmp_path: Any) -> None:
    pipeline = tamed("sdxl", "concat")
    model = subject_model(pipeline.components)
    seen: list[torch.Tensor] = []
    model.family.denoiser.add_time_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].view(-1, 6)))
    wide = {"photo_width": 640, "photo_height": 480, "crop_left": 5, "crop_top": 0}
    cropped = [{**tiny.row(i, 0, 1, "train"), **wide} for i in range(4)]
    schema.write([schema.table(cropped, schema.ROWS)], schema.ROWS, tmp_path / "train-00000.parquet")
    off = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None, "regularization": 0.0}
    p = params("sdxl", "concat", steps=1, **off)
    run = loop.start_run(model, None, loop.accelerator_for("cpu", "fp32"), p)
    source = ExampleSource.of(model, load_rows(tmp_path, "train"), p)
    list(loop.train(run, p, partial(batch_at, source=source)))
    assert torch.cat(seen).tolist() == [[480, 640, 0, 5, 32, 32]] * 4
    seen.clear()
    pipeline(PROMPTS, **CALL)
    assert {tuple(ids) for ids in torch.cat(seen).tolist()} == {(32, 48, 0, 0, 32, 48)}


def test_layers_cannot_be_chosen_for_concat_in_a_transformer() -> None:
    with pytest.raises(TamingError, match=r"train\.layers must be null"):
        require_design(family_of(tiny_bases.parts("sd3")), params("sd3", "concat", layers=["transformer_blocks.0"]))


@pytest.mark.parametrize(("family", "multiple"), [("sd15", 4), ("sdxl", 4), ("sd3", 4), ("flux", 4)])
def test_sizes_that_do_not_fit_are_refused(family: str, multiple: int) -> None:
    pipeline = tamed(family, "concat")
    with pytest.raises(TamingError, match=f"multiple of {multiple}"):
        require_size(subject_model(pipeline.components), 34)
    with pytest.raises(TamingError, match=f"multiples of {multiple}"):
        pipeline(PROMPTS, height=32, width=34)


def test_an_image_that_sd3_has_no_places_for_is_refused() -> None:
    pipeline = tamed("sd3", "concat")
    with pytest.raises(TamingError, match="takes 96 at most"):
        require_size(subject_model(pipeline.components), 100)
    with pytest.raises(TamingError, match="Set height and width to 96 at most"):
        pipeline(PROMPTS, height=32, width=100)


def test_guidance_that_nobody_reads_is_refused() -> None:
    with pytest.raises(TamingError, match="guidance_embedded has no effect on this base"):
        tamed("sd3", "concat")(PROMPTS, guidance_embedded=3.0)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(TamingError, match="no text-to-image model that is supported"):
        family_class({"transformer": ["diffusers", "PixArtTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]})
