"""Training speed beside the plain loop, of networks at full size with random weights; nothing is downloaded."""

import gc
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.state import AcceleratorState

from taming_core.benchmarks import speed
from taming_core.params.load import Params, load_params
from taming_core.params.train import TrainParams
from taming_core.projects import profiles
from taming_core.training import loop


@dataclass(frozen=True)
class Case:
    """One comparison."""

    profile: str
    memory: int | None  # GB of the preset
    batch_size: int
    tune: str  # adapter, lora or whole
    compile: bool = False

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.profile} {self.tune} {self.batch_size}{' compiled' if self.compile else ''}"


SD15, SDXL = "sd15-ip-adapter", "sdxl-ip-adapter"  # profiles of the design that compiles
# In the order of what is asked most: where time ends, the rest is left out.
CASES = (
    Case(SD15, 80, 8, "adapter"), Case(SD15, 80, 8, "lora"), Case(SD15, 80, 8, "whole"),
    Case(SDXL, 80, 4, "adapter"), Case(SD15, 80, 32, "adapter"), Case(SD15, 80, 32, "lora"),
    Case(SD15, 80, 32, "whole"), Case(SD15, 80, 8, "adapter", compile=True),
)  # fmt: skip
SMOKE = (Case("mini", None, 1, "lora"),)


def case_params(case: Case, side: int | None) -> Params:
    """The params of a case, with images of another side if one is given."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_text(profiles.params_text(case.profile, case.memory), encoding="utf-8")
        params = load_params(file)
    p = speed.comparison_params(params.train, case.batch_size, case.tune)
    fixed = {"injection": None if p.start is not None else "decoupled", "compile": case.compile}
    sizes: dict[str, Any] = {"buckets": None} if side is None else {"buckets": None, "size": side, "subject_size": side}
    return params.model_copy(update={
        "train": TrainParams.model_validate({**p.model_dump(), **fixed}),
        "materialize": params.materialize.model_copy(update=sizes),
    })  # fmt: skip


def measure(case: Case, device: str, side: int | None, steps: int, rounds: int) -> list[dict[str, Any]]:
    """The speeds of our loop and of the plain one, in the current folder."""
    params = case_params(case, side)
    AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier case, with another precision
    accelerator = loop.accelerator_for(device, params.train.precision)
    model = speed.random_model(params, accelerator.device)
    rows = speed.random_rows(Path("rows"), params.materialize)
    found = speed.compare(model, rows, accelerator, params.train, steps, rounds)
    return [{"case": case.name, **asdict(one)} for one in found]


def free_memory() -> None:
    """Free what a case has left on the device, also where it failed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
