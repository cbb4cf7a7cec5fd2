"""How every model of `mini` learns: a resumable loop over the world, the same for all, and its numbers.

Each stage brings its network and a function from step to loss. Nothing random is kept: the photos of a step are a
function of (seed, step), so a run that was killed goes on to the same weights.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from taming_core.errors import TamingError
from taming_core.evaluation.statistics import estimate
from taming_core.fingerprints import fingerprint
from taming_core.progress import track
from taming_core.seeds import seed_for
from taming_core.tables.shards import RUNS
from taming_core.weights.mini import MINI
from taming_core.world.artwork import World
from taming_core.world.plan import Chances, Plan, generator, plan

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

HERE = Path(__file__).parent
WEIGHTS = MINI
PARAMS = HERE / "params.yaml"

SYNC_EVERY = 20  # steps after which a GPU is asked how it went; each question would hold it up

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")
Figures = dict[str, float] | dict[str, Tensor] | dict[str, float | Tensor]  # tensors of one number
LossAt = Callable[[int], tuple[Tensor, Figures]]  # step -> loss and what to log beside it


class Section(BaseModel):
    """A part of params.yaml; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lesson(Section):
    """What all trainings have in common."""

    seed: int
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat  # peak, after warm-up
    warmup: NonNegativeInt  # steps
    weight_decay: NonNegativeFloat
    ema: float = Field(ge=0, lt=1)  # decay of the average that is kept; 0 keeps the last weights
    save_every: PositiveInt  # steps


UNTOLD = frozenset({"save_every", "workers"})  # keys that change no weight


def section(kind: type[S], name: str, path: Path = PARAMS) -> S:
    """One checked section of params.yaml; raises pydantic's error, which names the key."""
    found: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return kind.model_validate(found[name])


@dataclass
class School:
    """A training under way; `step` counts completed updates."""

    parts: nn.ModuleDict  # what learns
    optimizer: torch.optim.Optimizer
    average: "EMAModel | None"
    step: int = 0


@dataclass(frozen=True)
class Report:
    """What a step did."""

    step: int  # completed
    loss: float
    figures: dict[str, float]
    seconds: float


def begin(parts: dict[str, nn.Module], p: Lesson, rates: dict[str, float] | None = None) -> School:
    """A school at step 0; `rates` are shares of the learning rate by part, 1 where none is given."""
    from diffusers.training_utils import EMAModel  # here, for it takes seconds and not every stage learns

    learners = nn.ModuleDict(parts)
    groups = [
        {"params": [w for w in part.parameters() if w.requires_grad], "share": (rates or {}).get(name, 1.0)}
        for name, part in parts.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=p.learning_rate, weight_decay=p.weight_decay, betas=(0.9, 0.98))
    trained = [w for w in learners.parameters() if w.requires_grad]
    return School(learners, optimizer, EMAModel(trained, decay=p.ema, foreach=True) if p.ema else None)


def rate_at(step: int, p: Lesson) -> float:
    """Share of the peak rate in a step, counted from 0: linear warm-up, then a cosine down to zero."""
    if step < p.warmup:
        return (step + 1) / (p.warmup + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - p.warmup) / max(p.steps - p.warmup, 1))


def learn(school: School, loss_at: LossAt, p: Lesson, state: Path) -> Iterator[Report]:
    """Train to the last step, saving below `state`; goes on where the school or the saved state stands.

    At the end the averaged weights are in place. Raises TamingError if a loss is not finite; no such weights are saved.
    On a GPU reports come some at a time, for losses stay there until they are asked for.
    """
    load(school, state)
    at_once = steps_at_once(school)
    unread: list[tuple[Tensor, Figures]] = []
    start = time.perf_counter()
    for step in range(school.step, p.steps):
        unread.append(_update(school, loss_at, step, p))
        to_save = school.step % p.save_every == 0
        if len(unread) == at_once or to_save or school.step == p.steps:
            reports = _reports(unread, school.step, start)
            if to_save:
                save(school, state)
            yield from reports
            unread, start = [], time.perf_counter()
    if school.average:
        school.average.copy_to(w for w in school.parts.parameters() if w.requires_grad)


def steps_at_once(school: School) -> int:
    """How many steps are told of together."""
    return SYNC_EVERY if any(w.is_cuda for w in school.parts.parameters()) else 1


def _update(school: School, loss_at: LossAt, step: int, p: Lesson) -> tuple[Tensor, Figures]:
    """One step of the optimizer; the loss and what is logged beside it, not yet read from the device."""
    for group in school.optimizer.param_groups:
        group["lr"] = p.learning_rate * group["share"] * rate_at(step, p)
    torch.manual_seed(seed_for(p.seed, "step", step))  # dropout and what a network draws itself
    loss, figures = loss_at(step)
    loss.backward()
    trained = [w for group in school.optimizer.param_groups for w in group["params"]]
    nn.utils.clip_grad_norm_(trained, 1.0)
    school.optimizer.step()
    school.optimizer.zero_grad(set_to_none=True)
    school.step = step + 1
    if school.average:
        school.average.step(w for w in school.parts.parameters() if w.requires_grad)
    return loss.detach(), {k: v.detach() if isinstance(v, Tensor) else v for k, v in figures.items()}


def _reports(unread: list[tuple[Tensor, Figures]], last: int, start: float) -> list[Report]:
    """The reports of the steps up to `last`; raises TamingError at the first whose loss is not finite."""
    losses = torch.stack([loss for loss, _ in unread]).tolist()  # waits until all of them are done
    seconds = (time.perf_counter() - start) / len(unread)
    steps = range(last - len(unread) + 1, last + 1)
    for step, loss in zip(steps, losses, strict=True):
        if not math.isfinite(loss):
            raise TamingError(f"The loss is {loss} in step {step}. Lower the learning rate in {PARAMS}.")
    return [
        Report(step, loss, {k: float(v) for k, v in figures.items()}, seconds)
        for step, loss, (_, figures) in zip(steps, losses, unread, strict=True)
    ]


def state_folder(stage: str, p: Section, *inputs: str) -> Path:
    """Where the state of a training lies that has these numbers and inputs; safe to delete."""
    return RUNS / f"mini-{stage}-{fingerprint(p, *inputs, without=UNTOLD)}"


def save(school: School, state: Path) -> None:
    """Weights, optimizer and average, under a temporary name first."""
    tensors = {f"weights/{k}": v for k, v in school.parts.state_dict().items()}
    for i, slot in school.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in slot.items()}
    if school.average:
        tensors |= {f"average/{i}": w for i, w in enumerate(school.average.shadow_params)}
    facts = {"step": school.step, "averaged": school.average.optimization_step if school.average else 0}
    state.mkdir(parents=True, exist_ok=True)
    part = state / "school.safetensors.part"
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(kept, part, {"facts": json.dumps(facts)})
    part.replace(state / "school.safetensors")


def load(school: School, state: Path) -> None:
    """What `save` wrote, if it is there."""
    file = state / "school.safetensors"
    if not file.is_file():
        return
    tensors, facts = load_file(file), _facts(file)
    school.parts.load_state_dict(_below(tensors, "weights/"))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer/").items():
        index, key = name.split("/", 1)
        slots.setdefault(int(index), {})[key] = value
    groups = school.optimizer.state_dict()["param_groups"]
    school.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    if school.average:
        shadow = school.average.shadow_params
        for i, weight in enumerate(shadow):
            weight.copy_(tensors[f"average/{i}"])
        school.average.optimization_step = facts["averaged"]
    school.step = facts["step"]


def _facts(file: Path) -> dict[str, int]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["facts"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class PlanBook(Dataset[list[Plan]]):
    """The plans of every step; item `step` is the batch of that step, so that workers can draw ahead."""

    def __init__(self, world: World, p: Lesson, chances_at: Callable[[int], Chances], split: str = "train") -> None:
        self.world, self.p, self.chances_at, self.split = world, p, chances_at, split
        self.candidates = world.of_split(split)

    def __len__(self) -> int:
        return self.p.steps

    def __getitem__(self, step: int) -> list[Plan]:
        chances, first = self.chances_at(step), step * self.p.batch_size
        numbers = range(first, first + self.p.batch_size)
        return [plan(self.world, self.candidates, generator(self.p.seed, self.split, n), chances) for n in numbers]


def ahead(book: Dataset[Any], start: int, steps: int, workers: int) -> Iterator[Any]:
    """The items of a book from `start` on, drawn ahead by worker processes where there are any."""
    return iter(DataLoader(
        book, batch_size=None, sampler=range(start, steps), num_workers=workers,
        prefetch_factor=4 if workers else None, collate_fn=_as_is,
        generator=torch.Generator(),  # else starting to read would draw a number that resumed steps do not draw
    ))  # fmt: skip


def opened(book: Dataset[T], steps: int, workers: int) -> Callable[[int], tuple[T, float]]:
    """A function from step to the book's item and the seconds that were waited for it, to be called step by step.

    The first call says where to start, so that a resumed training need not know it beforehand.
    """
    items: list[Iterator[T]] = []

    def item_at(step: int) -> tuple[T, float]:
        start = time.perf_counter()
        if not items:
            items.append(ahead(book, step, steps, workers))
        return next(items[0]), time.perf_counter() - start

    return item_at


def _as_is(item: Any) -> Any:
    return item


def watch(reports: Iterator[Report], stage: str, steps: int, state: Path) -> None:
    """Run to the end behind a progress bar, with one line of metrics.jsonl per step."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "metrics.jsonl").open("a") as log:
        for r in track(reports, stage, steps):
            numbers = {"step": r.step, "loss": r.loss, **r.figures, "seconds": round(r.seconds, 4)}
            print(json.dumps(numbers), file=log, flush=True)


def write_metrics(folder: Path, numbers: dict[str, Any]) -> None:
    """metrics.json beside the weights, to four digits."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}
    (folder / "metrics.json").write_text(json.dumps(rounded, indent=2) + "\n")


def estimated(name: str, values: Sequence[float] | NDArray[Any], subjects: Sequence[str]) -> dict[str, float]:
    """A mean and the ends of its bootstrap interval over subjects, as entries of metrics.json."""
    found = estimate(np.asarray(values, np.float64), subjects, seed=0)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def keep(model: Any, folder: Path) -> None:
    """A copy in half precision, in files of at most 15 MB."""
    copy.deepcopy(model).half().save_pretrained(folder, max_shard_size="15MB")
