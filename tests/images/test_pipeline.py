"""TamingPipeline behaves as diffusers' pipelines do: what their own tests check, of every family."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bases
import torch
from base_pipelines import CALL, GUIDED, OURS, PROMPTS, seeds, tamed
from PIL import Image
from tiny_bases import FAMILIES

from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline, load_pipeline

SHOWN = {**CALL, "guidance_object": 2.0}
SUBJECT = Image.new("RGBA", (40, 40), (220, 30, 60, 255))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def taught(family: str, injection: str = "decoupled") -> TamingPipeline:
    """One whose object tokens say something."""
    pipeline = tamed(family, injection)
    generator = torch.Generator().manual_seed(5)
    for layer in pipeline.object_encoder.denoiser_layers().values():
        weight = layer.get_submodule("to_v").weight
        torch.nn.init.normal_(weight, std=0.3, generator=generator)  # pyright: ignore[reportArgumentType]
    return pipeline


@pytest.fixture
def pipeline(family: str) -> TamingPipeline:
    return taught(family)


def images(pipeline: TamingPipeline, family: str, prompts: Any = PROMPTS, **more: Any) -> np.ndarray:
    given = {"generator": seeds(), "object_embeds": embeds(pipeline), **more}
    return pipeline(prompts, **{**SHOWN, **OURS[family], **given}).images


def embeds(pipeline: TamingPipeline) -> torch.Tensor:
    return torch.randn(2, 3, pipeline.family.width, generator=torch.Generator().manual_seed(2))


def test_a_batch_is_its_images_one_by_one(pipeline: TamingPipeline, family: str) -> None:
    together, z = images(pipeline, family), embeds(pipeline)
    for i, prompt in enumerate(PROMPTS):
        alone = images(pipeline, family, prompt, generator=seeds()[i], object_embeds=z[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_images_of_one_prompt_stand_together(pipeline: TamingPipeline, family: str) -> None:
    four = [torch.Generator().manual_seed(n) for n in (0, 7, 1, 8)]
    found = images(pipeline, family, num_images_per_prompt=2, generator=four)
    assert found.shape == (4, 32, 48, 3)
    np.testing.assert_allclose(found[[0, 2]], images(pipeline, family), atol=1e-4)


def test_a_seed_is_an_image(pipeline: TamingPipeline, family: str) -> None:
    first, again = (images(pipeline, family, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, images(pipeline, family, generator=torch.Generator().manual_seed(5)), atol=1e-2)


def test_every_output_type_shows_the_same(pipeline: TamingPipeline, family: str) -> None:
    found = {kind: images(pipeline, family, output_type=kind) for kind in ("np", "pt", "pil", "latent")}
    assert found["pt"].shape == (2, 3, 32, 48)
    assert found["latent"].shape == (2, 4, 16, 24)
    assert [image.size for image in found["pil"]] == [(48, 32)] * 2
    np.testing.assert_allclose(found["pt"].permute(0, 2, 3, 1).numpy(), found["np"], atol=1e-6)
    np.testing.assert_allclose(np.asarray(found["pil"][0]) / 255, found["np"][0], atol=0.51 / 255)


def test_a_tuple_holds_what_the_output_holds(pipeline: TamingPipeline, family: str) -> None:
    call = {**SHOWN, **OURS[family], "object_embeds": embeds(pipeline)}
    assert np.array_equal(pipeline(PROMPTS, **call, generator=seeds(), return_dict=False)[0], images(pipeline, family))


def test_a_callback_may_stop_and_is_told_what_it_asks_for(pipeline: TamingPipeline, family: str) -> None:
    steps = []

    def stop(told: Any, step: int, time: int, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        steps.append((step, set(given)))
        told.interrupt = step == 1
        return given

    images(pipeline, family, callback_on_step_end=stop)
    assert steps == [(0, {"latents"}), (1, {"latents"})]
    assert pipeline.num_timesteps == 3
    with pytest.raises(TamingError, match="can get latents, but not prompt_embeds"):
        images(pipeline, family, callback_on_step_end=stop, callback_on_step_end_tensor_inputs=["prompt_embeds"])


def test_a_callback_may_change_the_latents(pipeline: TamingPipeline, family: str) -> None:
    def blank(_: Any, step: int, time: int, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"latents": torch.zeros_like(given["latents"])}

    assert not images(pipeline, family, callback_on_step_end=blank, output_type="latent").any()


def test_starting_noise_may_be_given(pipeline: TamingPipeline, family: str) -> None:
    noise = torch.cat([torch.randn(1, 4, 16, 24, generator=g) for g in seeds()])
    assert np.array_equal(images(pipeline, family, latents=noise, generator=None), images(pipeline, family))


def test_guidance_leads_away_from_a_negative_prompt_as_in_diffusers(family: str) -> None:
    parts = tiny_bases.parts(family)
    guided = {**GUIDED[family], **({"true_cfg_scale": 3.0} if family == "flux" else {})}
    ours = OURS[family] | ({"guidance_text": 3.0} if family == "flux" else {})
    theirs = tiny_bases.stock(family, parts)(
        PROMPTS, negative_prompt=["ugly"] * 2, **CALL, **guided, generator=seeds()
    ).images
    found = tamed(family, "concat", parts)(PROMPTS, negative_prompt="ugly", **CALL, **ours, generator=seeds()).images
    np.testing.assert_allclose(found, theirs, atol=2e-5)


def test_each_prompt_may_have_its_own_negative_prompt(pipeline: TamingPipeline, family: str) -> None:
    both = images(pipeline, family, negative_prompt=["a beach", ""])
    for i, negative in enumerate(["a beach", None]):
        np.testing.assert_allclose(both[i], images(pipeline, family, negative_prompt=negative)[i], atol=1e-4)
    np.testing.assert_allclose(both[1], images(pipeline, family)[1], atol=1e-4)
    assert np.abs(both[0] - images(pipeline, family)[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"negative_prompt": ["ugly"] * 3}, "3 negative prompts for 2 prompts"),
        ({"negative_prompt": "an ugly <object>"}, "The negative prompt holds <object>"),
        ({"negative_prompt": "ugly", "guidance_object": 1.0, "guidance_text": 1.0}, "negative prompt has no effect"),
        ({"prompt": ["very " * 600 + "<object>"] * 2}, "and loses 'very .*<object>'. Write <object> earlier"),
    ],
)
def test_prompts_that_would_be_ignored_are_refused(asked: dict[str, Any], words: str) -> None:
    call = {**SHOWN, **OURS["sd15"], "object_embeds": embeds(taught("sd15")), "prompt": PROMPTS, **asked}
    with pytest.raises(TamingError, match=words):
        taught("sd15")(**call)


def test_without_guidance_of_the_text_no_prompt_leads_away() -> None:
    with pytest.raises(TamingError, match="negative prompt has no effect"):
        taught("flux")(PROMPTS, negative_prompt="ugly", **{**CALL, **OURS["flux"]})


def test_words_that_no_text_encoder_reads_are_named_once(family: str, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = taught(family)
    lost = f"a <object> on {'the ' * max(pipeline.family.lengths)}{family}"
    for _ in range(2):
        images(pipeline, family, [lost, "a cat"])
    (said,) = [r.getMessage() for r in caplog.records if "too long" in r.getMessage()]
    assert said.endswith(f"{family}'.")


def test_an_object_encoded_before_is_the_object(family: str) -> None:
    pipeline = taught(family)
    z = pipeline.encode_objects([SUBJECT])
    assert z.shape == (1, 3, pipeline.family.width)
    found = images(pipeline, family, object_embeds=None, subject=SUBJECT)
    np.testing.assert_allclose(found, images(pipeline, family, object_embeds=z), atol=1e-5)


def test_it_can_be_put_together_of_another_ones_parts(pipeline: TamingPipeline, family: str) -> None:
    again = type(pipeline)(**pipeline.components)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(images(again, family), images(pipeline, family))


def test_what_is_saved_is_safe_and_opens_in_another_precision(
    pipeline: TamingPipeline, family: str, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    again = TamingPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    again.set_progress_bar_config(disable=True)
    parts = [p for p in again.components.values() if isinstance(p, torch.nn.Module)]
    assert {w.dtype for p in parts for w in p.parameters()} == {torch.bfloat16}
    np.testing.assert_allclose(images(again, family), images(pipeline, family), atol=0.3)
    again.to(torch.float32)
    np.testing.assert_allclose(images(again, family), images(pipeline, family), atol=0.1)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("injection", ["concat", "decoupled"])
def test_attention_in_slices_still_sees_the_object(family: str, injection: str) -> None:
    pipeline = taught(family, injection)
    whole = images(pipeline, family)
    pipeline.enable_attention_slicing("max")
    np.testing.assert_allclose(images(pipeline, family), whole, atol=1e-4)
    pipeline.disable_attention_slicing()
    np.testing.assert_allclose(images(pipeline, family), whole, atol=1e-5)


def test_the_autoencoder_may_work_in_slices_and_tiles(pipeline: TamingPipeline, family: str) -> None:
    whole = images(pipeline, family)
    pipeline.vae.enable_slicing()
    np.testing.assert_allclose(images(pipeline, family), whole, atol=1e-5)
    pipeline.vae.enable_tiling()
    assert images(pipeline, family).shape == whole.shape


def test_parts_may_wait_elsewhere(pipeline: TamingPipeline, family: str) -> None:
    """On a machine with an accelerator they wait in the CPU's memory; the hooks are the same here."""
    whole = images(pipeline, family)
    pipeline.enable_model_cpu_offload(device="cpu")
    hooked = {n for n, p in pipeline.components.items() if hasattr(p, "_hf_hook")}
    assert hooked == {*pipeline.family.text_encoders, pipeline.family.denoiser_name, "vae"}
    for _ in range(2):
        np.testing.assert_allclose(images(pipeline, family), whole, atol=1e-5)


def test_a_lora_of_diffusers_is_loaded_and_leaves_again(pipeline: TamingPipeline, family: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    before, name = images(pipeline, family), pipeline.family.denoiser_name
    other = tiny_bases.parts(family)[name]
    other.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = {f"{name}_lora_layers": get_peft_model_state_dict(other)}
    tiny_bases.STOCK[family].save_lora_weights(tmp_path, **layers)
    pipeline.load_lora_weights(tmp_path)  # pyright: ignore[reportAttributeAccessIssue]
    assert np.abs(images(pipeline, family) - before).max() > 1e-3
    pipeline.unload_lora_weights()  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(images(pipeline, family), before, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"offload": True}, "--offload has no effect on the CPU"),
        ({"precision": "fp16"}, "--precision fp16 has no effect on the CPU"),
        ({"precision": "fp8"}, "There is no precision fp8. Use one of fp32, bf16, fp16"),
    ],
)
def test_what_is_of_no_use_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(TamingError, match=words):
        load_pipeline("mini", **asked)
