"""Checkpoints of a run: written atomically, resumed by the same command, restored bit for bit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # PathLike[Unknown]
from torch import Tensor, nn

from taming_core import files
from taming_core.files import read_json, replacing_folder, write_json
from taming_core.fingerprints import digest
from taming_core.fingerprints import fingerprint as config_fingerprint
from taming_core.model.subject_model import SubjectModel
from taming_core.params.train import TrainParams
from taming_core.storage.paths import AnyPath
from taming_core.tables.row_files import rows_state
from taming_core.training import agreement, distributed
from taming_core.training.loop import Run

WITHOUT = frozenset({"save_every", "validation", "cache", "offload"})  # params with no effect on the weights
STATE = "state"  # a folder per saved step: state-000020


@dataclass(frozen=True)
class Origin:
    """What a training starts from, besides its params."""

    rows: str  # `rows_state`
    weights: str  # `model_state`, before the first step


def origin_of(rows: AnyPath, model: SubjectModel) -> Origin:
    """The origin of a training of `model`, which has done no step."""
    return Origin(rows_state(rows), model_state(model))


def fingerprint(p: TrainParams, origin: Origin) -> str:
    """A digest of everything that the trained weights depend on."""
    return config_fingerprint(p, origin.rows, origin.weights, without=WITHOUT)


def model_state(model: SubjectModel) -> str:
    """A digest of all weights of the model before the first step."""
    return digest(network_digest(model, name).encode() for name in model.networks)


def network_digest(model: SubjectModel, name: str) -> str:
    """The digest of a network's weights: of the files that they were loaded from, else of their values."""
    return model.digests.get(name) or digest(weight_bytes(model.networks[name]))


def weight_bytes(network: nn.Module) -> Iterator[bytes]:
    """Names and values of all weights of a network, for a digest."""
    for name, value in network.state_dict().items():
        yield name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().data


def save(run: Run, folder: Path) -> None:
    """Save the run below `folder` and remove the earlier state; all processes must call it."""
    tensors = {name: distributed.full_tensor(value).contiguous() for name, value in run_tensors(run)}
    if run.processes.is_main:
        write(run, tensors, folder)
    run.processes.barrier()


def write(run: Run, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the tensors of `run_tensors`, and remove earlier states."""
    scaler = scaler_of(run)
    sidecar = {"step": run.step, "scaler": None if scaler is None else scaler.state_dict()}
    with replacing_folder(folder / f"{STATE}-{run.step:06d}") as part:
        save_file(dict(tensors), part / "tensors.safetensors")
        write_json(part / "run.json", sidecar)
    for old in saved_states(folder)[:-1]:
        files.remove(old)


def state_bytes(run: Run, p: TrainParams) -> int:
    """About how large a saved state is: weights, both moments of Adam, and the EMA."""
    weights = sum(weight.nbytes for named in run.trained.values() for weight in named.values())
    moments = weights // 2 if p.optimizer == "adamw8bit" else 2 * weights
    return weights + moments + (weights if run.ema is not None else 0)


def require_space(run: Run, p: TrainParams, folder: Path) -> None:
    """Check that the disk has room for the saved states: the newest is written before the one before it is removed.

    Raises:
        TamingError: it has not.
    """
    to_come = 1 if saved_states(folder) else 2
    files.require_space(folder, to_come * state_bytes(run, p), "the state of this training")


def scaler_of(run: Run) -> Any:
    """The gradient scaler of fp16; None in other precisions."""
    accelerator: Any = run.accelerator
    return accelerator.scaler


def saved_states(folder: Path) -> list[Path]:
    """The complete states below a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{STATE}-*") if path.suffix != ".part")


def remove_states(folder: Path) -> None:
    """Remove all saved states; for a run whose encoder has been written."""
    for old in saved_states(folder):
        files.remove(old)


def load(run: Run, folder: Path) -> None:
    """Resume a new run from the last state below `folder`, if there is one; all processes must call it.

    Raises:
        TamingError: processes see different states.
    """
    agreement.await_files(saved_states(folder), run.processes)
    for state in saved_states(folder)[-1:]:
        sidecar: dict[str, Any] = read_json(state / "run.json")
        restore(run, load_file(state / "tensors.safetensors"))
        if (scaler := scaler_of(run)) is not None:
            scaler.load_state_dict(sidecar["scaler"])
        run.step = sidecar["step"]
        if run.ema is not None:
            run.ema.optimization_step = run.step
    agreement.require_same({f"saved states in {folder}": str(run.step)}, run.processes)


def run_tensors(run: Run) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of trained weights, optimizer state and EMA, such as `denoiser/conv_in.weight/exp_avg`."""
    averages = ema_tensors(run)
    for part, weights in run.trained.items():
        for name, weight in weights.items():
            yield f"{part}/{name}/weight", weight
            for key, value in run.optimizer.state.get(weight, {}).items():
                yield f"{part}/{name}/{key}", as_tensor(key, value)
            if averages:
                yield f"{part}/{name}/ema", averages[part, name]


def as_tensor(key: str, value: Tensor | int) -> Tensor:
    """An entry of the optimizer state as an unshared tensor: bitsandbytes has an int `step` and shared code books."""
    if isinstance(value, int):
        return torch.tensor(value)
    return value.clone() if key.startswith("qmap") else value


def ema_tensors(run: Run) -> dict[tuple[str, str], Tensor]:
    """The EMA by network and name of the weights; empty without one."""
    names = [(part, name) for part, weights in run.trained.items() for name in weights]
    ema: Any = run.ema
    return {} if ema is None else dict(zip(names, ema.shadow_params, strict=True))


@torch.no_grad()
def restore(run: Run, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `run_tensors`."""
    averages = ema_tensors(run)
    for path, value in tensors.items():
        part, name, key = path.split("/")
        weight = run.trained[part][name]
        if key == "weight":
            distributed.copy_full(weight, value)
        elif key == "ema":
            distributed.copy_full(averages[part, name], value)
        else:
            run.optimizer.state[weight][key] = optimizer_tensor(key, value, weight, run)


def optimizer_tensor(key: str, value: Tensor, weight: nn.Parameter, run: Run) -> Tensor | int:
    """An entry of the optimizer state in the type, on the device and with the sharding that the optimizer expects."""
    if key == "step":  # on the weights' device for fused AdamW, on the CPU for AdamW, an int for bitsandbytes
        fused = run.optimizer.param_groups[0].get("fused")
        return value.to(weight.device if fused else "cpu") if value.is_floating_point() else int(value)
    if value.shape != weight.shape:  # of the 8-bit optimizer
        return value.to(weight.device)
    restored = torch.empty_like(weight, dtype=value.dtype)  # in the weight's memory format, and sharded like it
    distributed.copy_full(restored, value)
    return restored
