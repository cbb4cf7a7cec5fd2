"""The training loop of mini: resuming, errors, and that workers change nothing."""

import json
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipelines.mini import devices, metrics, train_state, training_loop, world_data
from pipelines.mini.stage_params import TrainingParams, load_section
from pipelines.mini.train_state import TrainState, new_train_state
from pipelines.mini.training_loop import Report
from pipelines.mini.world_data import PlanDataset
from taming_core.errors import TamingError
from taming_core.world.artwork import World, load_world
from taming_core.world.plan import Chances

P = TrainingParams(seed=3, steps=6, batch_size=2, learning_rate=0.1, warmup=1, weight_decay=0.1, ema=0.9, save_every=2)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def dataset(world: World) -> PlanDataset:
    return PlanDataset(world, P, lambda step: Chances(recolor=step / P.steps))


def fresh() -> TrainState:
    """A network with dropout, and a frozen one."""
    torch.manual_seed(0)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    return new_train_state({"net": nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), "frozen": frozen}, P, {"net": 0.5})


def trained(state: TrainState, world: World, folder: Path, workers: int) -> Generator[Report]:
    """Train on the placements of plans."""
    plans_at = world_data.batch_reader(dataset(world), P.steps, workers)

    def loss_at(step: int) -> tuple[Tensor, dict[str, Any]]:
        plans, waited = plans_at(step)
        inputs = torch.tensor([[p.objects[0].placement.x, p.objects[0].placement.y, p.window.zoom] for p in plans])
        out = state.modules["net"](inputs.float())
        return out.square().mean(), {"largest": out.max(), "waited": waited}

    yield from training_loop.train(state, loss_at, P, folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_six_steps_equal_two_a_stop_and_four(world: World, tmp_path: Path, workers: int) -> None:
    whole = fresh()
    reports = list(trained(whole, world, tmp_path / "whole", 0))
    assert [r.step for r in reports] == [1, 2, 3, 4, 5, 6]

    stopped = trained(fresh(), world, tmp_path / "parts", workers)
    first = [next(stopped), next(stopped)]
    stopped.close()
    resumed = fresh()
    rest = list(trained(resumed, world, tmp_path / "parts", workers))
    assert [r.loss for r in first + rest] == [r.loss for r in reports]
    assert [r.logs["largest"] for r in first + rest] == [r.logs["largest"] for r in reports]
    for name, weight in whole.modules.state_dict().items():
        assert torch.equal(weight, resumed.modules.state_dict()[name]), name


def test_the_ema_weights_are_in_place_at_the_end(world: World, tmp_path: Path) -> None:
    state = fresh()
    list(trained(state, world, tmp_path, 0))
    assert state.ema is not None
    assert all(torch.equal(w, s) for w, s in zip(state.trained(), state.ema.shadow_params, strict=True))
    saved, net = load_file(tmp_path / train_state.FILE), state.modules["net"].state_dict()
    assert not torch.equal(saved["weights/net.0.weight"], net["0.weight"])  # the last weights, to resume from


def test_workers_compute_the_same_plans(world: World) -> None:
    drawn = [list(map(repr, world_data.prefetch(dataset(world), 1, 5, workers))) for workers in (0, 2)]
    assert drawn[0] == drawn[1] == [repr(dataset(world)[step]) for step in range(1, 5)]


def test_prefetching_draws_no_random_number(world: World) -> None:
    torch.manual_seed(1)
    next(world_data.prefetch(dataset(world), 0, 2, 0))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)


def test_the_learning_rate_warms_up_and_decays() -> None:
    p = P.model_copy(update={"steps": 11, "warmup": 3})
    assert [training_loop.learning_rate_factor(s, p) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert training_loop.learning_rate_factor(7, p) == pytest.approx(0.5)
    assert 0 < training_loop.learning_rate_factor(10, p) < 0.05


@pytest.mark.parametrize("at_once", [1, 20])
def test_a_loss_that_is_not_finite_is_named_and_not_saved(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fresh()
    monkeypatch.setattr(training_loop, "reports_at_once", lambda _: at_once)

    def loss_at(step: int) -> tuple[Tensor, dict[str, float]]:
        return state.modules["net"](torch.ones(1, 3)).sum() * (math.nan if step >= 2 else 1), {}

    reports = training_loop.train(state, loss_at, P, tmp_path)
    assert [next(reports).step, next(reports).step] == [1, 2]  # before step 3, for then they are saved
    with pytest.raises(TamingError, match=r"nan in step 3"):
        next(reports)
    assert train_state.read_counters(tmp_path / train_state.FILE)["step"] == 2


def test_reports_are_the_same_in_groups_and_one_by_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    for at_once in (1, 4):
        monkeypatch.setattr(training_loop, "reports_at_once", lambda _, n=at_once: n)
        reports.append([(r.step, r.loss) for r in trained(fresh(), world, tmp_path / str(at_once), 0)])
    assert reports[0] == reports[1]


def test_the_log_has_the_seconds_spent_waiting(world: World, tmp_path: Path) -> None:
    training_loop.run_with_progress(trained(fresh(), world, tmp_path, 0), "test", P.steps, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, P.steps + 1))
    assert all(0 < line["waited"] < 5 for line in lines)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("net: {seed: 0, stepz: 3}\n")
    with pytest.raises(ValidationError, match="stepz"):
        load_section(TrainingParams, "net", tmp_path / "params.yaml")


def test_workers_and_saving_change_no_state_folder() -> None:
    assert training_loop.state_folder("net", P) == training_loop.state_folder(
        "net", P.model_copy(update={"save_every": 3})
    )
    assert training_loop.state_folder("net", P) != training_loop.state_folder("net", P.model_copy(update={"seed": 4}))


def test_on_a_cpu_the_side_stream_changes_nothing() -> None:
    tensor = torch.ones(1)
    with devices.side_stream("cpu") as keep_alive:
        assert keep_alive(tensor) is tensor


def test_a_metric_has_its_interval() -> None:
    found = metrics.with_interval("right", [True, True, False, False], ["a", "a", "b", "b"])
    assert found == {"right": 0.5, "right_low": 0.0, "right_high": 1.0}
