"""A device is the one that was named, up to the number of the GPU."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from taming_core.errors import TamingError
from taming_core.training.loop import accelerator_for
from taming_core.weights.device import pick_device


@pytest.fixture
def _no_accelerator() -> Iterator[None]:
    """Accelerate keeps the device of the first accelerator of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """PyTorch as on a machine with two GPUs; the list receives those that become the current one."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_accelerate_trains_on_the_gpu_that_was_named(device: str) -> None:
    assert accelerator_for(device, "fp32").device == torch.device(device)


@pytest.mark.usefixtures("_no_accelerator")
def test_the_name_of_a_gpu_does_not_outlast_its_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)
    accelerator_for("cuda:1", "fp32")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert accelerator_for("cpu", "fp32").device == torch.device("cpu")


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TamingError, match=r"--device cuda:1 is one GPU.* Use --device cuda,"):
        accelerator_for("cuda:1", "fp32")


def test_a_gpu_with_a_number_becomes_the_current_one(current: list[int]) -> None:
    assert [pick_device(name) for name in ("cuda", "auto")] == ["cuda", "cuda"]
    assert current == []
    assert pick_device("cuda:1") == "cuda:1"
    assert current == [1]


def test_a_gpu_that_the_machine_lacks_is_refused(current: list[int]) -> None:
    with pytest.raises(TamingError, match=r"no device cuda:2 on this machine. Use --device cuda:0 to cuda:1"):
        pick_device("cuda:2")
    assert current == []
