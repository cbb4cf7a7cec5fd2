"""T5 in half precision: `wo`, whose output exceeds the range of fp16, stays in float32 and is computed in it."""

from pathlib import Path
from typing import Any

import pytest
import tiny_bases
import torch
from base_pipelines import tamed
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from stages.export import export
from taming_core.images.families import TamingPipeline
from taming_core.training.loop import cast_frozen
from taming_core.weights.precision import convert, float32_names, run_without_autocast

IDS = torch.arange(12).view(1, 12)


def loud_t5() -> T5EncoderModel:
    """With the gated layers of T5 v1.1; a channel of the first token becomes 200,000, which fp16 cannot hold."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=900, d_model=tiny_bases.T5_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    )  # fmt: skip
    model = T5EncoderModel(config).eval()
    found: Any = model.encoder.block[0].layer[-1]
    with torch.no_grad():
        found.DenseReluDense.wi_1.weight.mul_(50)
        inner: list[Tensor] = []
        hook = found.DenseReluDense.wo.register_forward_pre_hook(lambda _, given: inner.append(given[0]))
        model(input_ids=IDS)
        hook.remove()
        direction = inner[0][0, 0] / inner[0][0, 0].square().sum()
        found.DenseReluDense.wo.weight[0] = 2e5 * direction
    return model


def output(model: nn.Module, **half: Any) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.float16, enabled=bool(half)):
        return model(input_ids=IDS).last_hidden_state[0, 0, 1:].float()  # of the loud token, without the loud channel


def error(model: nn.Module, expected: Tensor, **half: Any) -> float:
    return float((output(model, **half) - expected).abs().max() / expected.abs().max())


def kept(model: nn.Module) -> set[str]:
    return {n for n, w in model.named_parameters() if w.dtype == torch.float32}


def test_fp16_overflows_where_wo_is_cast() -> None:
    """What this file is about: without the exception the result is another one."""
    model = loud_t5()
    expected = output(model)
    assert error(nn.Module.half(model), expected) > 1


def test_a_network_in_fp16_keeps_wo_and_its_output() -> None:
    model = loud_t5()
    expected = output(model)
    convert(model, torch.float16)
    assert kept(model) == {n for n in kept(model) if ".wo." in n} != set()
    assert error(model, expected) < 0.01
    bf16 = loud_t5()
    convert(bf16, torch.bfloat16)
    assert kept(bf16) == set()  # as transformers loads it


def test_a_frozen_text_encoder_of_a_training_in_fp16_keeps_them_too() -> None:
    model = loud_t5().requires_grad_(False)
    expected = output(model)
    cast_frozen(model, torch.float16, float32_names(model, torch.float16))
    run_without_autocast(model, torch.float16)
    assert {n for n in kept(model) if "norm" not in n} == {n for n, _ in model.named_parameters() if ".wo." in n}
    assert error(model, expected, autocast=True) < 0.01


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_pipelines_and_exports_in_fp16_keep_them(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = tiny_bases.parts(family)
    name = {"sd3": "text_encoder_3", "flux": "text_encoder_2"}[family]
    parts[name] = loud_t5()
    expected = output(parts[name])
    tamed(family, "decoupled", parts).save_pretrained("encoder")
    loaded = TamingPipeline.from_pretrained("encoder", dtype=torch.float16).components[name]
    assert error(loaded, expected) < 0.01
    export("diffusers", Path("exported"), "encoder", dtype="fp16")
    exported = T5EncoderModel.from_pretrained("exported", subfolder=name, dtype="auto")
    assert {w.dtype for n, w in exported.named_parameters() if ".wo." in n} == {torch.float32}
    assert error(exported, expected) < 0.01


def test_a_pipeline_that_is_opened_without_a_precision_is_in_float32(tmp_path: Path) -> None:
    pipeline = tamed("flux", "decoupled")
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            nn.Module.half(part)
    pipeline.save_pretrained(tmp_path)
    again = TamingPipeline.from_pretrained(tmp_path)
    networks = [part for part in again.components.values() if isinstance(part, nn.Module)]
    assert {w.dtype for network in networks for w in network.parameters()} == {torch.float32}
