"""What changes the weights: one kernel for all, or averages of 8 bits."""

import sys
from pathlib import Path

import pytest
import tiny
import torch
from tiny_runs import begun, state, steps

from taming_core.errors import TamingError
from taming_core.training import checkpoint
from taming_core.training.optimizers import make_optimizer

CPU = torch.device("cpu")


def test_adamw_changes_all_weights_by_one_kernel_and_as_the_plain_one_does() -> None:
    p = tiny.train_params(weight_decay=0.1)
    weights = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))]
    plain = [torch.nn.Parameter(w.detach().clone()) for w in weights]
    ours = make_optimizer([{"params": weights, "share": 1.0}], p, CPU)
    theirs = torch.optim.AdamW(plain, lr=p.learning_rate, weight_decay=0.1, foreach=False)
    assert ours.param_groups[0]["fused"]
    assert ours.param_groups[0]["share"] == 1.0
    for step in range(3):
        for own, other in zip(weights, plain, strict=True):
            own.grad = other.grad = torch.full_like(own, float(step - 1))
        ours.step()
        theirs.step()
    for own, other in zip(weights, plain, strict=True):
        torch.testing.assert_close(own, other)


def test_without_its_library_adamw8bit_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(TamingError, match=r"pip install 'taming\[8bit\]'"):
        make_optimizer([], tiny.train_params(optimizer="adamw8bit"), CPU)


def test_adamw8bit_is_not_for_every_device() -> None:
    with pytest.raises(TamingError, match="needs a GPU of CUDA or a CPU"):
        make_optimizer([], tiny.train_params(optimizer="adamw8bit"), torch.device("mps"))


def test_two_and_two_steps_of_8_bits_are_four_to_the_last_bit(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    rows = tiny.write_rows(tmp_path / "rows")
    p = tiny.train_params(optimizer="adamw8bit", identity_weight=0.0, identity_network=None, identity_max_timestep=None)
    whole, stopped, again = (begun(p, "decoupled") for _ in range(3))
    reports = steps(whole, p, rows, 4)
    steps(stopped, p, rows, 2)
    assert torch.uint8 in {value.dtype for value in state(stopped).values()}
    checkpoint.save(stopped, tmp_path / "state")
    checkpoint.load(again, tmp_path / "state")
    assert steps(again, p, rows, 4) == reports[2:]
    found, expected = state(again), state(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
