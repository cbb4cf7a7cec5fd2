"""What every training reads: the artwork, and the plans of the photos of each step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.mini.devices import prepare_device
from pipelines.mini.stage_params import TrainingParams
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.plan import Chances, Plan, generator, plan

T = TypeVar("T")


@dataclass(frozen=True)
class WorldData:
    """The artwork and the device that a stage computes on."""

    world: World
    pictures: Pictures  # on `device`, or on the CPU where photos are rendered there
    device: str


def load_data(folder: Path, device: str, render_on_cpu: bool = False) -> WorldData:
    """Load the artwork and set the device up."""
    name, world = prepare_device(device), load_world(folder)
    return WorldData(world, load_pictures(world) if render_on_cpu else load_pictures(world, name), name)


class PlanDataset(Dataset[list[Plan]]):
    """Plans of photos; item `step` is the batch of that step, so that workers can prefetch."""

    def __init__(
        self, world: World, p: TrainingParams, chances_at: Callable[[int], Chances], split: str = "train"
    ) -> None:
        self.world, self.p, self.chances_at, self.split = world, p, chances_at, split
        self.candidates = world.of_split(split)

    def __len__(self) -> int:
        return self.p.steps

    def __getitem__(self, step: int) -> list[Plan]:
        chances, first = self.chances_at(step), step * self.p.batch_size
        numbers = range(first, first + self.p.batch_size)
        return [plan(self.world, self.candidates, generator(self.p.seed, self.split, n), chances) for n in numbers]


def prefetch(dataset: Dataset[Any], start: int, steps: int, workers: int) -> Iterator[Any]:
    """The items of a dataset from `start` on, computed ahead by worker processes if there are any."""
    return iter(DataLoader(
        dataset, batch_size=None, sampler=range(start, steps), num_workers=workers,
        prefetch_factor=4 if workers else None, collate_fn=_identity,
        generator=torch.Generator(),  # else the loader draws from the global generator, only in runs not resumed
    ))  # fmt: skip


def batch_reader(dataset: Dataset[T], steps: int, workers: int) -> Callable[[int], tuple[T, float]]:
    """A function from step to the dataset's item and the seconds spent waiting; call it with consecutive steps.

    Its first call sets the first step, which a resumed training knows only after loading its state.
    """
    items: list[Iterator[T]] = []

    def item_at(step: int) -> tuple[T, float]:
        start = time.perf_counter()
        if not items:
            items.append(prefetch(dataset, step, steps, workers))
        return next(items[0]), time.perf_counter() - start

    return item_at


def _identity(item: Any) -> Any:
    return item
