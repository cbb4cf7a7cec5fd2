"""LoRA of the denoiser: nothing at first, the same when fused, and a file that loads onto the base."""

from pathlib import Path

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from torch import Tensor

from taming_core.images.families import TamingPipeline
from taming_core.model import lora
from taming_core.params.train import LoraParams

PARAMS = LoraParams(rank=2, alpha=6.0)


def states(pipeline: TamingPipeline) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in pipeline.unet.state_dict().items()}


def drawn(pipeline: TamingPipeline) -> Tensor:
    embeds = torch.randn(1, pipeline.object_encoder.config["tokens"], pipeline.object_encoder.config["width"],
                         generator=torch.Generator().manual_seed(3))  # fmt: skip
    return pipeline("a <object> in the snow", object_embeds=embeds, num_inference_steps=2, output_type="latent",
                    generator=torch.Generator().manual_seed(0)).images  # fmt: skip


def trained(pipeline: TamingPipeline) -> TamingPipeline:
    """The pipeline with a LoRA, and whatever a design adds, that are not zero any more."""
    lora.add_lora(pipeline.unet, PARAMS, 0)
    generator = torch.Generator().manual_seed(1)
    for part in (pipeline.unet, pipeline.object_encoder):
        for name, weight in part.named_parameters():
            if "lora_B" in name or "injected" in name:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return pipeline


def test_a_fresh_lora_changes_nothing_and_hangs_on_the_seed_alone() -> None:
    pipeline = tiny.pipeline()
    before = drawn(pipeline)
    torch.manual_seed(4)
    following = torch.rand(3)
    torch.manual_seed(4)
    lora.add_lora(pipeline.unet, PARAMS, 0)
    assert torch.equal(torch.rand(3), following)  # the global generator is as it was
    assert torch.equal(drawn(pipeline), before)
    names = [n for n, _ in pipeline.unet.named_parameters() if "lora_A" in n]
    assert {n.split(".lora_A")[0].split(".")[-1] for n in names} == {"to_q", "to_k", "to_v", "0"}
    again, other = tiny.pipeline(), tiny.pipeline()
    lora.add_lora(again.unet, PARAMS, 0)
    lora.add_lora(other.unet, PARAMS, 1)
    assert all(torch.equal(v, states(again)[n]) for n, v in states(pipeline).items())
    assert all(not torch.equal(states(pipeline)[n], states(other)[n]) for n in names)


@pytest.mark.parametrize("injection", tiny.DESIGNS)
def test_settled_it_draws_the_same_with_plain_weights(injection: str, tmp_path: Path) -> None:
    plain = states(tiny.pipeline(injection))
    pipeline = trained(tiny.pipeline(injection))
    before = drawn(pipeline)
    assert lora.has_lora(pipeline.unet)
    lora.save_and_fuse(pipeline, tmp_path)
    assert not lora.has_lora(pipeline.unet)
    torch.testing.assert_close(drawn(pipeline), before, atol=1e-4, rtol=1e-4)
    found = states(pipeline)
    assert found.keys() == plain.keys()
    changed = {n for n, v in found.items() if not torch.equal(v, plain[n])}
    assert changed == {n for n in plain if n.endswith(tuple(f"{layer}.weight" for layer in lora.LAYERS))}


def test_the_file_loads_onto_the_base_and_says_nothing_of_alpha(tmp_path: Path) -> None:
    pipeline = trained(tiny.pipeline())
    wanted = pipeline.unet.eval()
    inputs = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 32, 16)
    with torch.no_grad():
        expected = wanted(*inputs)[0]
    lora.save_and_fuse(pipeline, tmp_path)
    path = tmp_path / "lora/pytorch_lora_weights.safetensors"
    with safe_open(path, "pt") as file:
        assert not [n for n in file.keys() if "alpha" in n]  # noqa: SIM118  (no mapping)
        assert {file.get_tensor(n).dtype for n in file.keys()} == {torch.float16}  # noqa: SIM118
    parts = tiny.pipeline().components
    base = StableDiffusionPipeline(
        **{n: parts[n] for n in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    with torch.no_grad():
        alone = base.unet(*inputs)[0]
        base.load_lora_weights(path.parent)
        found = base.unet(*inputs)[0]
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    assert (alone - expected).abs().max() > 0.05
