"""State of a run on disk: written whole or not at all, found again by the same command, restored to the last bit."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taming_core.fingerprints import fingerprint as config_fingerprint
from taming_core.model.subject_model import SubjectModel
from taming_core.params.train import TrainParams
from taming_core.training import distributed
from taming_core.training.loop import Run

WITHOUT = frozenset({"save_every", "validation", "cache", "offload"})  # keys of the params that change no weight
STATE = "state"  # a folder per saved step: state-000020


def fingerprint(p: TrainParams, rows: Path, model: SubjectModel) -> str:
    """What names a run: all that its weights depend on; `model` as it stands before the first step."""
    return config_fingerprint(p, rows_state(rows), model_state(model), without=WITHOUT)


def rows_state(folder: Path) -> str:
    """Changes with the rows; reads but the footers of the files, which hold counts, sizes and extremes of columns."""
    digest = blake2b(digest_size=8)
    for path in sorted(folder.glob("*.parquet")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + _footer(path))
    return digest.hexdigest()


def _footer(path: Path) -> bytes:
    """A Parquet file ends in its footer, the footer's length in 4 bytes, and the magic number in 4."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return file.read(length)


def model_state(model: SubjectModel) -> str:
    """Changes with any weight of the model."""
    digest = blake2b(digest_size=8)
    for part in model.networks.values():
        update_digest(digest, part)
    return digest.hexdigest()


def update_digest(digest: Any, part: nn.Module) -> None:
    """Let a digest depend on every weight of a network."""
    for name, value in part.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def save(run: Run, folder: Path) -> None:
    """Save the run below `folder`, in the place of the state before; every process of the run must call it."""
    found = {name: distributed.full_tensor(value).contiguous() for name, value in run_tensors(run)}
    if run.processes.is_main:
        write(run, found, folder)
    run.processes.barrier()


def write(run: Run, found: Mapping[str, Tensor], folder: Path) -> None:
    """Write what `tensors` found, whole."""
    part, whole = folder / f"{STATE}.part", folder / f"{STATE}-{run.step:06d}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(dict(found), part / "tensors.safetensors")
    scaler = run.accelerator.scaler
    sidecar = {"step": run.step, "scaler": None if scaler is None else scaler.state_dict()}
    (part / "run.json").write_text(json.dumps(sidecar))
    shutil.rmtree(whole, ignore_errors=True)
    part.rename(whole)
    for old in saved_states(folder)[:-1]:
        shutil.rmtree(old)


def saved_states(folder: Path) -> list[Path]:
    """The states below a folder, oldest first."""
    return sorted(folder.glob(f"{STATE}-*"))


def remove_states(folder: Path) -> None:
    """Remove what `save` wrote; for a run whose encoder is safe elsewhere."""
    for old in saved_states(folder):
        shutil.rmtree(old)


def load(run: Run, folder: Path) -> None:
    """Bring a run that has just begun to where it was last saved below `folder`, if it was."""
    for state in saved_states(folder)[-1:]:
        sidecar: dict[str, Any] = json.loads((state / "run.json").read_text())
        restore(run, load_file(state / "tensors.safetensors"))
        if run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(sidecar["scaler"])
        run.step = sidecar["step"]
        if run.ema is not None:
            run.ema.optimization_step = run.step


def run_tensors(run: Run) -> Iterator[tuple[str, Tensor]]:
    """All that training changes, by name: `denoiser/conv_in.weight/weight`, what the optimizer keeps, its average."""
    averages = ema_tensors(run)
    for part, weights in run.trained.items():
        for name, weight in weights.items():
            yield f"{part}/{name}/weight", weight
            for key, value in run.optimizer.state.get(weight, {}).items():
                yield f"{part}/{name}/{key}", as_tensor(key, value)
            if averages:
                yield f"{part}/{name}/ema", averages[part, name]


def as_tensor(key: str, value: Tensor | int) -> Tensor:
    """A part of an optimizer's state as a tensor of its own: bitsandbytes counts in int, and shares its code books."""
    if isinstance(value, int):
        return torch.tensor(value)
    return value.clone() if key.startswith("qmap") else value


def ema_tensors(run: Run) -> dict[tuple[str, str], Tensor]:
    """The moving averages by part and name of their weights; none where none are kept."""
    names = [(part, name) for part, weights in run.trained.items() for name in weights]
    return {} if run.ema is None else dict(zip(names, run.ema.shadow_params, strict=True))


@torch.no_grad()
def restore(run: Run, found: dict[str, Tensor]) -> None:
    """The inverse of `tensors`."""
    averages = ema_tensors(run)
    for full, value in found.items():
        part, name, key = full.split("/")
        weight = run.trained[part][name]
        if key == "weight":
            distributed.copy_full(weight, value)
        elif key == "ema":
            distributed.copy_full(averages[part, name], value)
        else:
            run.optimizer.state[weight][key] = optimizer_tensor(key, value, weight, run)


def optimizer_tensor(key: str, value: Tensor, weight: nn.Parameter, run: Run) -> Tensor | int:
    """A part of an optimizer's state where the optimizer keeps it."""
    if key == "step":  # AdamW keeps it beside the weights where one kernel changes them all, bitsandbytes as an int
        fused = run.optimizer.param_groups[0].get("fused")
        return value.to(weight.device if fused else "cpu") if value.is_floating_point() else int(value)
    if value.shape != weight.shape:  # of 8 bits
        return value.to(weight.device)
    found = torch.empty_like(weight, dtype=value.dtype)  # in the weight's memory format, and shared out as it is
    distributed.copy_full(found, value)
    return found
