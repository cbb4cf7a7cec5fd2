"""The pipeline on the shipped weights: photo and prompt in, images out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from small_rows import artwork

from taming_core.bases.family import Text
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline, load_pipeline
from taming_core.images.guidance import EncodedPrompts, guidance_passes

BEACH, SNOW = "a photo of a <object> on the beach", "a photo of a <object> in the snow"


def noise(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def latents(pipeline: TamingPipeline, prompt: str | list[str], **arguments: Any) -> torch.Tensor:
    """Two steps at a quarter of the area."""
    size = {"height": 64, "width": 64, "num_inference_steps": 2}
    return pipeline(prompt, **size, output_type="latent", return_dict=False, **arguments)[0]


def test_an_object_is_k_tokens_that_do_not_depend_on_its_batch(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    assert embeds.shape == (2, 256, 256)
    torch.testing.assert_close(pipeline.encode_objects(artwork(2)[1:]), embeds[1:], rtol=1e-4, atol=1e-4)
    assert (embeds[0] - embeds[1]).abs().mean() > 0.05


def test_an_image_of_a_batch_is_the_image_alone(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    both = latents(pipeline, [BEACH, SNOW], object_embeds=embeds, generator=noise(1, 2))
    alone = latents(pipeline, SNOW, object_embeds=embeds[1:], generator=noise(2))
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)
    assert (both[0] - both[1]).abs().mean() > 0.1


def test_images_of_one_prompt_stand_together(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    found = latents(pipeline, [BEACH, SNOW], object_embeds=embeds, num_images_per_prompt=2, generator=noise(1, 2, 3, 4))
    third = latents(pipeline, SNOW, object_embeds=embeds[1:], generator=noise(3))
    torch.testing.assert_close(found[2:3], third, rtol=1e-3, atol=1e-3)


def test_a_kept_embedding_gives_the_image_of_its_subject(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    by_subject = latents(pipeline, BEACH, subject=artwork(1)[0], generator=noise(1))
    by_embedding = latents(pipeline, BEACH, object_embeds=embeds[:1], generator=noise(1))
    torch.testing.assert_close(by_subject, by_embedding, rtol=1e-3, atol=1e-3)


def test_a_saved_pipeline_draws_the_same(pipeline: TamingPipeline, embeds: torch.Tensor, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    again = load_pipeline(str(tmp_path))
    expected = latents(pipeline, BEACH, object_embeds=embeds[:1], generator=noise(1))
    found = latents(again, BEACH, object_embeds=embeds[:1], generator=noise(1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # where tensors lie in memory changes last bits
    before, after = pipeline.object_encoder.state_dict(), again.object_encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("kind", "shape"), [("np", (1, 128, 128, 3)), ("pt", (1, 3, 128, 128))])
def test_output_types(pipeline: TamingPipeline, embeds: torch.Tensor, kind: str, shape: tuple[int, ...]) -> None:
    start = torch.zeros(1, 4, 32, 32)
    images = pipeline(
        BEACH, object_embeds=embeds[:1], latents=start, num_inference_steps=1, output_type=kind, return_dict=False
    )[0]
    assert images.shape == shape
    assert 0 <= images.min() < images.max() <= 1


def test_pictures_come_in_an_output_object(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    out: Any = pipeline(BEACH, object_embeds=embeds[:1], num_inference_steps=1, generator=noise(0))
    assert [(i.size, i.mode) for i in out.images] == [((128, 128), "RGB")]


def seen_by_the_denoiser(pipeline: TamingPipeline, **arguments: Any) -> list[torch.Size]:
    """Shapes of the contexts that the denoiser got in one step."""
    shapes: list[torch.Size] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda _, given: shapes.append(given[2].shape))
    pipeline(BEACH, height=64, width=64, num_inference_steps=1, output_type="latent", generator=noise(0), **arguments)
    hook.remove()
    return shapes


def test_equal_scales_take_two_passes_and_one_alone_takes_one(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    def samples(**scales: float) -> int:
        return sum(shape[0] for shape in seen_by_the_denoiser(pipeline, object_embeds=embeds[:1], **scales))

    assert samples(guidance_object=3.0, guidance_text=3.0) == 2
    assert samples(guidance_object=2.0, guidance_text=3.0) == 3
    assert samples(guidance_object=1.0, guidance_text=1.0) == 1


def test_no_scale_of_equal_ones_jumps(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    start = {"object_embeds": embeds[:1], "guidance_object": 3.0}
    two = latents(pipeline, BEACH, generator=noise(1), guidance_text=3.0, **start)
    three = latents(pipeline, BEACH, generator=noise(1), guidance_text=3.0 + 1e-6, **start)
    torch.testing.assert_close(two, three, rtol=1e-3, atol=1e-3)


def test_guidance_is_the_two_way_formula() -> None:
    """e(0,0) + s_obj (e(0,z) - e(0,0)) + s_txt (e(c,z) - e(0,z)), on predictions that are plain numbers."""
    text, null, silent = (
        EncodedPrompts(Text(torch.tensor(v), None), torch.tensor(0), torch.tensor(0.0)) for v in (5.0, 2.0, 3.0)
    )
    passes = guidance_passes(text, null, silent, torch.tensor(10.0), 1.5, 4.0)
    total = sum(w * float(words.text.states + (0 if o is None else o)) for w, words, o in passes)
    nothing, object_only, both = 2.0, 13.0, 15.0
    assert total == pytest.approx(nothing + 1.5 * (object_only - nothing) + 4.0 * (both - object_only))


def test_without_an_object_it_is_the_text_to_image_model(pipeline: TamingPipeline) -> None:
    assert {shape[1] for shape in seen_by_the_denoiser(pipeline)} == {32}


def test_more_guidance_to_the_object_changes_the_image(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    weak, strong = (
        latents(pipeline, BEACH, object_embeds=embeds[:1], generator=noise(1), guidance_object=s) for s in (0.0, 5.0)
    )
    assert (weak - strong).abs().mean() > 0.05


def test_a_callback_sees_every_step_and_may_change_the_latents(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    seen = []

    def stop(_: Any, step: int, timestep: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append((step, timestep))
        return {"latents": torch.zeros_like(state["latents"])}

    found = latents(pipeline, BEACH, object_embeds=embeds[:1], generator=noise(1), callback_on_step_end=stop)
    assert [step for step, _ in seen] == [0, 1]
    assert seen[0][1] > seen[1][1]
    assert not found.any()


def test_the_ground_of_a_subject_says_nothing(pipeline: TamingPipeline) -> None:
    rgba = np.array(artwork(1)[0].resize((128, 128)))
    rgba[rgba[..., 3] == 0] = [255, 0, 0, 0]
    same = pipeline.encode_objects([Image.fromarray(rgba), artwork(1)[0].resize((128, 128))])
    torch.testing.assert_close(same[0], same[1], rtol=1e-3, atol=1e-3)


def test_wrong_numbers_of_objects_are_named(pipeline: TamingPipeline, embeds: torch.Tensor) -> None:
    with pytest.raises(TamingError, match="2 objects for 1 prompts"):
        pipeline(BEACH, object_embeds=embeds)
    with pytest.raises(TamingError, match="Give one of them"):
        pipeline(BEACH, object_embeds=embeds[:1], subject=artwork(1)[0])


def test_a_folder_that_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="Run `taming train` first"):
        load_pipeline(str(tmp_path))


@pytest.fixture(params=tiny.DESIGNS)
def design(request: pytest.FixtureRequest) -> TamingPipeline:
    """A small pipeline of each network design, its layers as after some training."""
    made = tiny.pipeline(request.param)
    for layer in made.object_encoder.denoiser_layers().values():
        torch.nn.init.normal_(layer.to_v.weight)
        if request.param == "gated":
            torch.nn.init.ones_(layer.gate)
    return made


def things(count: int) -> list[Image.Image]:
    return [Image.fromarray(tiny.picture(i, i)[0]).resize((tiny.SIDE, tiny.SIDE)) for i in range(count)]


def drawn(pipeline: TamingPipeline, prompt: str | list[str], **arguments: Any) -> torch.Tensor:
    few = {"num_inference_steps": 2, "output_type": "latent", "return_dict": False, "guidance_object": 2.0}
    return pipeline(
        prompt, **few, generator=noise(*range(len(prompt)) if isinstance(prompt, list) else [0]), **arguments
    )[0]


def test_every_design_draws_the_object_and_another_differently(design: TamingPipeline) -> None:
    one, other = (drawn(design, BEACH, subject=thing) for thing in things(2))
    assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.allclose(one, drawn(design, BEACH), atol=1e-3)


def test_more_photos_of_one_object_are_more_tokens(design: TamingPipeline) -> None:
    z = design.encode_objects([things(2), things(3)[1:]])
    single = design.encode_objects(things(1))
    assert z.shape == (2, 2 * single.shape[1], single.shape[2])
    torch.testing.assert_close(z[:1, : single.shape[1]], single)
    both, first = drawn(design, BEACH, object_embeds=z[:1]), drawn(design, BEACH, object_embeds=single)
    assert not torch.allclose(both, first, atol=1e-4)
    with pytest.raises(TamingError, match="more photos than others"):
        design.encode_objects([things(2), things(1)])


def test_several_objects_in_one_image(design: TamingPipeline) -> None:
    z = design.encode_objects(things(3))
    prompts = ["a <object> and a <object>", "a <object> by a <object> in the snow"]
    pairs = torch.stack([z[:2], z[1:]])
    both = drawn(design, prompts, object_embeds=pairs)
    second = design(
        prompts[1], object_embeds=pairs[1:], num_inference_steps=2, output_type="latent", return_dict=False,
        guidance_object=2.0, generator=noise(1),
    )[0]  # fmt: skip
    torch.testing.assert_close(both[1:], second, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[1:], drawn(design, prompts, object_embeds=pairs.flip(0))[1:], atol=1e-3)
    with pytest.raises(TamingError, match="holds <object> 1 times, and there are 2 objects"):
        design(BEACH, object_embeds=pairs[:1])


def test_in_the_place_of_the_word_there_must_be_a_word() -> None:
    with pytest.raises(TamingError, match="holds <object> 0 times, and there are 1 objects"):
        tiny.pipeline("substitute")("a photo", subject=things(1)[0])


def test_a_scale_weighs_what_is_added_and_is_refused_where_nothing_is(design: TamingPipeline) -> None:
    if design.injection in ("substitute", "concat"):
        with pytest.raises(TamingError, match="object_scale has no effect"):
            design(BEACH, subject=things(1)[0], object_scale=0.5)
        return
    none = drawn(design, BEACH, subject=things(1)[0], object_scale=0.0, guidance_text=2.0)
    torch.testing.assert_close(none, drawn(design, BEACH, guidance_text=2.0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(none, drawn(design, BEACH, subject=things(1)[0], guidance_text=2.0), atol=1e-3)


def test_every_design_saved_and_opened_again_draws_the_same(design: TamingPipeline, tmp_path: Path) -> None:
    design.save_pretrained(tmp_path)
    again = load_pipeline(str(tmp_path))
    assert torch.equal(*(drawn(p, BEACH, subject=things(1)[0]) for p in (design, again)))
