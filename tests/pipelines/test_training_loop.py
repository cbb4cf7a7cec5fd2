"""The shared loop of the mini trainings: where it goes on, what it refuses, and that workers change nothing."""

import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.world.artwork import World, load_world
from taming_core.world.plan import Chances

MINI = Path(__file__).parents[1] / "pipelines" / "mini"

sys.path.insert(0, str(MINI))
try:
    schooling, devices = import_module("schooling"), import_module("devices")
finally:
    sys.path.remove(str(MINI))

P = schooling.Lesson(
    seed=3, steps=6, batch_size=2, learning_rate=0.1, warmup=1, weight_decay=0.1, ema=0.9, save_every=2
)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def book(world: World) -> Any:
    return schooling.PlanBook(world, P, lambda step: Chances(recolor=step / P.steps))


def begun() -> Any:
    """A net that draws numbers itself, and a frozen part beside it."""
    torch.manual_seed(0)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    return schooling.begin({"net": nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), "frozen": frozen}, P, {"net": 0.5})


def taught(school: Any, world: World, state: Path, workers: int) -> Iterator[Any]:
    """Learn from the placements of plans."""
    plans_at = schooling.opened(book(world), P.steps, workers)

    def loss_at(step: int) -> tuple[Tensor, dict[str, Any]]:
        plans, waited = plans_at(step)
        seen = torch.tensor([[p.things[0].placement.x, p.things[0].placement.y, p.window.zoom] for p in plans])
        out = school.parts["net"](seen.float())
        return out.square().mean(), {"largest": out.max(), "waited": waited}

    return schooling.learn(school, loss_at, P, state)


@pytest.mark.parametrize("workers", [0, 2])
def test_six_steps_equal_two_a_stop_and_four(world: World, tmp_path: Path, workers: int) -> None:
    whole = begun()
    reports = list(taught(whole, world, tmp_path / "whole", 0))
    assert [r.step for r in reports] == [1, 2, 3, 4, 5, 6]

    stopped = taught(begun(), world, tmp_path / "parts", workers)
    first = [next(stopped), next(stopped)]
    stopped.close()
    resumed = begun()
    rest = list(taught(resumed, world, tmp_path / "parts", workers))
    assert [r.loss for r in first + rest] == [r.loss for r in reports]
    assert [r.figures["largest"] for r in first + rest] == [r.figures["largest"] for r in reports]
    for name, weight in whole.parts.state_dict().items():
        assert torch.equal(weight, resumed.parts.state_dict()[name]), name


def test_the_averaged_weights_are_in_place_at_the_end(world: World, tmp_path: Path) -> None:
    school = begun()
    list(taught(school, world, tmp_path, 0))
    learnt = [w for w in school.parts.parameters() if w.requires_grad]
    assert all(torch.equal(w, s) for w, s in zip(learnt, school.average.shadow_params, strict=True))
    saved = schooling.load_file(tmp_path / "school.safetensors")
    assert not torch.equal(saved["weights/net.0.weight"], school.parts["net"][0].weight)  # the last ones, to go on from


def test_workers_draw_the_same_plans(world: World) -> None:
    drawn = [list(map(repr, schooling.ahead(book(world), 1, 5, workers))) for workers in (0, 2)]
    assert drawn[0] == drawn[1] == [repr(book(world)[step]) for step in range(1, 5)]


def test_reading_ahead_draws_no_random_number(world: World) -> None:
    torch.manual_seed(1)
    next(schooling.ahead(book(world), 0, 2, 0))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)


def test_rate() -> None:
    p = P.model_copy(update={"steps": 11, "warmup": 3})
    assert [schooling.rate_at(s, p) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schooling.rate_at(7, p) == pytest.approx(0.5)
    assert 0 < schooling.rate_at(10, p) < 0.05


@pytest.mark.parametrize("at_once", [1, 20])
def test_a_loss_that_is_not_finite_is_named_and_not_saved(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = begun()
    monkeypatch.setattr(schooling, "steps_at_once", lambda _: at_once)

    def loss_at(step: int) -> tuple[Tensor, dict[str, float]]:
        return school.parts["net"](torch.ones(1, 3)).sum() * (math.nan if step >= 2 else 1), {}

    reports = schooling.learn(school, loss_at, P, tmp_path)
    assert [next(reports).step, next(reports).step] == [1, 2]  # told before step 3, for then they are saved
    with pytest.raises(TamingError, match=r"nan in step 3"):
        next(reports)
    assert schooling._facts(tmp_path / "school.safetensors")["step"] == 2


def test_reports_that_come_together_are_those_that_come_singly(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for at_once in (1, 4):
        monkeypatch.setattr(schooling, "steps_at_once", lambda _, n=at_once: n)
        told.append([(r.step, r.loss) for r in taught(begun(), world, tmp_path / str(at_once), 0)])
    assert told[0] == told[1]


def test_metrics_tell_how_long_a_step_waited(world: World, tmp_path: Path) -> None:
    schooling.watch(taught(begun(), world, tmp_path, 0), "test", P.steps, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, P.steps + 1))
    assert all(0 < line["waited"] < 5 for line in lines)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("net: {seed: 0, stepz: 3}\n")
    with pytest.raises(ValidationError, match="stepz"):
        schooling.section(schooling.Lesson, "net", tmp_path / "params.yaml")


def test_workers_and_saving_change_no_state_folder() -> None:
    assert schooling.state_folder("net", P) == schooling.state_folder("net", P.model_copy(update={"save_every": 3}))
    assert schooling.state_folder("net", P) != schooling.state_folder("net", P.model_copy(update={"seed": 4}))


def test_on_a_cpu_nothing_goes_aside() -> None:
    tensor = torch.ones(1)
    with devices.aside("cpu") as kept:
        assert kept(tensor) is tensor


def test_an_estimate_has_its_ends() -> None:
    found = schooling.estimated("right", [True, True, False, False], ["a", "a", "b", "b"])
    assert found == {"right": 0.5, "right_low": 0.0, "right_high": 1.0}
