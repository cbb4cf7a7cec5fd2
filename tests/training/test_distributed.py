"""Two processes on a CPU end where one does that computes all of every batch."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import two_processes

from taming_core.errors import TamingError
from taming_core.model.subject_model import subject_model
from taming_core.params.train import TrainParams
from taming_core.training import loop
from taming_core.training.distributed import (
    ProcessGroup,
    all_reduce_gradients,
    buckets,
    gathered_weights,
    layers_on_device,
    require_divisible,
)

ROOT = Path(__file__).parents[2]
# As a command does it, which takes half the time to import everything.
TWO_PROCESSES = (
    "from stages.process import prepare; prepare(); import sys; from pathlib import Path; import two_processes; "
    "two_processes.main(Path(sys.argv[1]))"
)
ADAPTER = {"tune": "adapter", "denoiser_rate": 0.0}
ALONE = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def asked() -> dict[str, tuple[str, TrainParams, bool]]:
    """Design, params and whether the weights are shared out. Many rows lose their object, so that a process has none
    where the other has some."""
    few = {"steps": 2, "micro_batch_size": 1, "object_drop": 0.5, **ALONE}
    watched = {"localization_weight": 0.5, "ema": 0.5}
    return {
        "same weights": ("concat", tiny.train_params(**few, **watched), False),
        "whole, shared out": ("decoupled", tiny.train_params(**few), True),
        "adapter, shared out": ("decoupled", tiny.train_params(**few, **ADAPTER), True),
    }


RESUMED = {"steps": 2, "micro_batch_size": 2, "gradient_checkpointing": True, "ema": 0.5, **ALONE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("team")
    tiny.write_rows(found / "rows")
    return found


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, two_processes.Found]:
    """What two processes find."""
    told = {n: {"injection": i, "p": p.model_dump(), "shard": s} for n, (i, p, s) in asked().items()}
    resumed = {"injection": "gated", "p": tiny.train_params(**RESUMED).model_dump(), "shard": True}
    told |= {"undisturbed": resumed, "stopped": {**resumed, "stop": 1}, "resumed": resumed}
    (folder / "asked.json").write_text(json.dumps(told))
    shared = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(folder)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(n), "LOCAL_RANK": str(n)},
        )
        for n in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("name", asked())
def test_two_processes_train_as_one(name: str, found: dict[str, two_processes.Found], tmp_path: Path) -> None:
    """To rounding."""
    injection, p, _ = asked()[name]
    tiny.write_rows(tmp_path / "rows")
    one = two_processes.trained(tmp_path, injection, p, ProcessGroup())
    for figures, wanted in zip(found[name]["reports"], one["reports"], strict=True):
        assert figures == pytest.approx(wanted, rel=1e-5)
    assert found[name]["weights"].keys() == one["weights"].keys()
    for weight, wanted in zip(found[name]["weights"].values(), one["weights"].values(), strict=True):
        torch.testing.assert_close(weight, wanted, rtol=1e-4, atol=2e-6)


def test_processes_that_share_weights_out_go_on_where_they_stopped(found: dict[str, two_processes.Found]) -> None:
    whole, again = found["undisturbed"], found["resumed"]
    assert found["stopped"]["reports"] == whole["reports"][:1]
    assert again["reports"] == whole["reports"][1:]
    assert all(torch.equal(again["weights"][name], weight) for name, weight in whole["weights"].items())


@pytest.mark.parametrize("name", ["whole, shared out", "adapter, shared out"])
def test_no_process_ever_holds_the_whole_denoiser_on_its_device(
    name: str, found: dict[str, two_processes.Found]
) -> None:
    held, weights = found[name]["held"], sum(w.nbytes for w in tiny.unet().parameters())
    assert held["most"] <= weights / 2 + held["block"]
    assert held["most"] < 0.8 * weights


def test_processes_with_other_inputs_or_disks_are_all_told(found: dict[str, two_processes.Found]) -> None:
    host = platform.node()
    first, second = found["agreement"]
    assert first == second
    assert first["same"] is first["one disk"] is None
    assert first["max"] == 1
    assert first["other rows"].startswith(f"Process 1 on {host} has other rows than process 0 on {host}. Give all ")
    assert re.match(rf"Process 1 on {host} does not see .*/disk0/runs of process 0 on {host}", first["two disks"])
    assert "missing was written on another machine and is not seen on" in first["a file of one"]


ALONE_OF_TWO = """
from datetime import timedelta
from taming_core.errors import explain_lost_process
from taming_core.training import distributed, loop
distributed.JOINING = timedelta(seconds=1)
try:
    loop.accelerator_for("cpu", "fp32")
except RuntimeError as error:
    print(explain_lost_process(error))
"""


def test_a_process_whose_peers_never_start_says_so() -> None:
    there = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT)}  # fmt: skip
    command = [sys.executable, "-c", f"from stages.process import prepare; prepare(){ALONE_OF_TWO}"]
    said = subprocess.run(command, env={**os.environ, **there}, capture_output=True, text=True, check=True).stdout
    assert said.startswith("Other processes of this training did not start or are stuck. See their messages, check ")


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_a_configuration_of_accelerate_that_would_be_ignored_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(TamingError, match=rf"asks for {name}, which `taming train` does not use\. Set its "):
        loop.accelerator_for("cpu", "fp32")


def test_a_denoiser_to_be_sharded_stays_on_the_cpu() -> None:
    model = subject_model(tiny.pipeline("decoupled").components)
    loop.move_to_device(model, torch.device("meta"), tiny.train_params(**ADAPTER, precision="bf16"), shard=True)
    where = {name: {w.device.type for w in part.parameters()} for name, part in model.networks.items()}
    assert where.pop("denoiser") == {"cpu"}
    assert all(found == {"meta"} for found in where.values())
    assert {w.dtype for w in model.family.denoiser.conv_in.parameters()} == {torch.bfloat16}


def test_before_it_is_sharded_a_denoiser_draws_layer_by_layer() -> None:
    pipeline = tiny.pipeline("decoupled")
    call: dict[str, Any] = {"num_inference_steps": 1, "output_type": "np"}
    noise = [torch.Generator().manual_seed(0) for _ in range(2)]
    expected = pipeline("a dog", **call, generator=noise[0]).images
    weights = [w.clone() for w in pipeline.unet.parameters()]
    with layers_on_device(pipeline.unet, torch.device("cpu")):
        assert {w.device.type for w in pipeline.unet.parameters()} == {"meta"}
        assert np.array_equal(pipeline("a dog", **call, generator=noise[1]).images, expected)
    assert all(map(torch.equal, pipeline.unet.parameters(), weights))


def test_gathered_weights_are_all_weights_once() -> None:
    denoiser = tiny.unet()
    groups = gathered_weights(denoiser)
    names = [id(w) for group in groups for w in group]
    assert sorted(names) == sorted(id(w) for w in denoiser.parameters())
    assert len(names) == len(set(names))
    assert len(groups) > 3


def test_shares_of_a_batch_are_all_of_it() -> None:
    assert [list(range(8))[ProcessGroup(n, 4).share(8)] for n in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_buckets_hold_all_weights_in_order() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2**24)) for _ in range(3)]
    assert [len(bucket) for bucket in buckets(weights)] == [2, 1]
    assert [w for bucket in buckets(weights) for w in bucket] == weights


def test_one_process_has_nothing_to_add_up() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    all_reduce_gradients([weight], ProcessGroup())
    assert weight.grad is None


@pytest.mark.parametrize(
    ("count", "values", "shard", "injection", "words"),
    [
        (3, {}, False, "concat", "batch_size is 4, which 3 processes cannot share"),
        (1, {}, True, "decoupled", "--shard needs several processes"),
        (2, {}, True, "concat", "--shard cannot be used with concat"),
        (2, {"precision": "fp16"}, True, "gated", "Set train.precision to bf16"),
        (2, {"optimizer": "adamw8bit"}, True, "gated", "Set train.optimizer to adamw"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    count: int, values: dict[str, Any], shard: bool, injection: str, words: str
) -> None:
    with pytest.raises(TamingError, match=words):
        require_divisible(count, tiny.train_params(**values), shard, injection)
