"""What a precision allows a GPU to do with products of float32."""

from contextlib import suppress

import pytest
import tiny
import torch
from tiny_runs import begun, steps

from taming_core.weights.device import fast_kernels


def switches() -> tuple[bool, bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark


@pytest.mark.parametrize(("precision", "fast"), [("fp32", False), ("bf16", True), ("fp16", True)])
def test_tf32_and_measured_convolutions_are_for_half_precision_alone(precision: str, fast: bool) -> None:
    before = switches()
    assert before == (False, True, False)  # as PyTorch has them: convolutions in float32 are not exact
    with suppress(ZeroDivisionError), fast_kernels(precision):
        assert switches() == (fast,) * 3
        _ = 1 / 0
    assert switches() == before


def test_every_step_computes_with_what_its_precision_allows(tmp_path_factory: pytest.TempPathFactory) -> None:
    p, before, seen = tiny.train_params(steps=1), switches(), list[tuple[bool, bool, bool]]()
    run = begun(p, "concat")
    run.model.family.denoiser.register_forward_pre_hook(lambda *_: seen.append(switches()))
    steps(run, p, tiny.write_rows(tmp_path_factory.mktemp("rows")), 1)
    assert set(seen) == {(False, False, False)}
    assert switches() == before
