"""The state of a training: weights, optimizer and EMA, saved and loaded so that a resumed run ends bitwise equal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.mini.stage_params import TrainingParams

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

FILE = "state.safetensors"


@dataclass
class TrainState:
    """A training under way; `step` counts completed updates."""

    modules: nn.ModuleDict  # what is trained
    optimizer: torch.optim.Optimizer
    ema: "EMAModel | None"
    step: int = 0

    def trained(self) -> list[nn.Parameter]:
        """Parameters that require gradients, in the order of the modules."""
        return [w for w in self.modules.parameters() if w.requires_grad]


def new_train_state(
    modules: Mapping[str, nn.Module], p: TrainingParams, rates: dict[str, float] | None = None
) -> TrainState:
    """A state at step 0; `rates` are factors of the learning rate per module, 1 by default."""
    from diffusers.training_utils import EMAModel  # imported here, for it takes seconds and not every stage trains

    state_modules = nn.ModuleDict(modules)
    groups = [
        {"params": [w for w in module.parameters() if w.requires_grad], "rate": (rates or {}).get(name, 1.0)}
        for name, module in modules.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=p.learning_rate, weight_decay=p.weight_decay, betas=(0.9, 0.98))
    trained = [w for w in state_modules.parameters() if w.requires_grad]
    return TrainState(state_modules, optimizer, EMAModel(trained, decay=p.ema, foreach=True) if p.ema else None)


def save_state(state: TrainState, folder: Path) -> None:
    """Write weights, optimizer and EMA to one file, under a temporary name first."""
    tensors = {f"weights/{k}": v for k, v in state.modules.state_dict().items()}
    for i, slot in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in slot.items()}
    if state.ema:
        tensors |= {f"ema/{i}": w for i, w in enumerate(state.ema.shadow_params)}
    counters = {"step": state.step, "ema_step": state.ema.optimization_step if state.ema else 0}
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.part"
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, part, {"counters": json.dumps(counters)})
    part.replace(folder / FILE)


def load_state(state: TrainState, folder: Path) -> None:
    """Restore what `save_state` wrote to a folder; does nothing if there is no file."""
    file = folder / FILE
    if not file.is_file():
        return
    tensors, counters = load_file(file), read_counters(file)
    state.modules.load_state_dict(_with_prefix(tensors, "weights/"))
    _load_optimizer(state.optimizer, _with_prefix(tensors, "optimizer/"))
    if state.ema:
        for i, weight in enumerate(state.ema.shadow_params):
            weight.copy_(tensors[f"ema/{i}"])
        state.ema.optimization_step = counters["ema_step"]
    state.step = counters["step"]


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/", 1)
        slots.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def read_counters(file: Path) -> dict[str, int]:
    """Completed steps and EMA updates of a saved state."""
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["counters"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
