"""Checks of what depends on the device: precisions, resuming, compilation, offloading, sampling in half precision.

Each trains or draws with the embedded networks at the size of `Scale`, and returns its figures, or raises `Failed`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from PIL import Image

from taming_core.benchmarks.speed import random_rows
from taming_core.images.families import load_pipeline
from taming_core.model.subject_model import subject_model
from taming_core.params.load import load_params, packaged_params
from taming_core.params.train import TrainParams
from taming_core.training import checkpoint, data_loader, feature_cache, loop
from taming_core.training.batches import ExampleSource
from taming_core.training.compilation import compile_blocks
from taming_core.training.start import starting_pipeline

FRESH = {
    "start": None, "base": "mini", "injection": "decoupled", "background": "removed", "tune": "adapter", "lora": None,
    "encoder": {"tower": "mini", "projector": "linear", "tokens": 4, "tower_blocks": 0}, "denoiser_rate": 0.0,
    "text_encoder_rate": 0.0, "identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None,
    "localization_weight": 0.0, "regularization": 0.0, "prior": None, "object_drop": 0.0, "ema": 0.0, "warmup": 0,
    "learning_rate": 0.001, "save_every": 10**9, "cache": [], "offload": False,
}  # fmt: skip


class Failed(Exception):
    """A check's figures are not what they must be."""


@dataclass(frozen=True)
class Scale:
    """How much the checks compute."""

    side: int  # pixels of the images
    batch_size: int
    steps: int  # of a training
    sampling_steps: int
    backend: str  # of torch.compile


Figures = dict[str, float]
Check = Callable[[str, Scale], Figures]


def params(scale: Scale, **values: Any) -> TrainParams:
    """The params of a small training of an adapter."""
    sizes = {"batch_size": scale.batch_size, "micro_batch_size": scale.batch_size, "steps": scale.steps}
    base = load_params(packaged_params()).train.model_dump()
    return TrainParams.model_validate({**base, **FRESH, **sizes, **values})


@cache
def reference(device: str, scale: Scale) -> list[float]:
    """The losses of a training in fp32 that computes everything in every step, without interruption."""
    return losses(device, scale, params(scale))


def losses(
    device: str, scale: Scale, p: TrainParams, state: Path | None = None, backend: str | None = None
) -> list[float]:
    """The losses of a training in the current folder, which begins at the state saved in `state` and is saved there.

    With a `backend` of torch.compile, the blocks of the denoiser are compiled.
    """
    materialize = load_params(packaged_params()).materialize
    sizes = {"size": scale.side, "buckets": None, "subject_size": scale.side}
    rows = random_rows(Path("rows"), materialize.model_copy(update=sizes), count=8)
    AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier training, with another precision
    model = subject_model(starting_pipeline(p).components)
    run = loop.start_run(model, None, loop.accelerator_for(device, p.precision), p)
    if backend is not None:
        compile_blocks(model.family.denoiser, backend)
    if state is not None:
        checkpoint.load(run, state)
    source, _ = feature_cache.prepare(run, ExampleSource.of(model, rows, p))
    batches = data_loader.prefetched_batches(source, run.processes, run.accelerator.device)
    found = [report.losses.loss for report in loop.train(run, p, batches)]
    if state is not None:
        checkpoint.save(run, state)
    return found


def difference(found: list[float], expected: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def require(figures: Figures, **limits: float) -> Figures:
    """The figures, none of which is above its limit.

    Raises:
        Failed: one is, or is no number.
    """
    for name, limit in limits.items():
        if not figures[name] <= limit:
            raise Failed(f"{name} is {figures[name]:.3g}, above {limit:g}")
    return figures


def precisions(device: str, scale: Scale) -> Figures:
    """Losses of fp32 on the device against those on a CPU, and of half precision against fp32."""
    single = reference(device, scale)
    figures = {"fp32 to cpu": difference(single, reference("cpu", scale))}
    halves = ("bf16",) if device == "cpu" else ("bf16", "fp16")
    figures |= {half: difference(losses(device, scale, params(scale, precision=half)), single) for half in halves}
    return require(figures, **{"fp32 to cpu": 1e-3, **dict.fromkeys(halves, 0.05)})


def resume(device: str, scale: Scale) -> Figures:
    """Losses of a training that stopped half-way and was resumed, against those of one that was not."""
    half, state = scale.steps // 2, Path("state")
    first = losses(device, scale, params(scale, steps=half), state)
    rest = losses(device, scale, params(scale), state)
    return require({"difference": difference([*first, *rest], reference(device, scale))}, difference=1e-4)


def compiled(device: str, scale: Scale) -> Figures:
    """Losses with compiled blocks against those without."""
    found = losses(device, scale, params(scale), backend=scale.backend)
    return require({"difference": difference(found, reference(device, scale))}, difference=1e-3)


def offload(device: str, scale: Scale) -> Figures:
    """Losses with caches and offloaded networks against those that compute everything in every step."""
    found = losses(device, scale, params(scale, cache=["latents", "text"], offload=True))
    return require({"difference": difference(found, reference(device, scale))}, difference=1e-3)


def recomputation(device: str, scale: Scale) -> Figures:
    """Losses with gradient checkpointing against those without."""
    found = losses(device, scale, params(scale, gradient_checkpointing=True))
    return require({"difference": difference(found, reference(device, scale))}, difference=1e-3)


@torch.no_grad()
def drawing(device: str, scale: Scale) -> Figures:
    """Images of half precision, and with model offload, against fp32: mean difference of a pixel in [0, 1]."""
    ways = [("bf16", False)] if device == "cpu" else [("bf16", False), ("fp16", False), ("fp32", True)]
    single = image(device, "fp32", False, scale)
    figures = {
        precision if not moved else "offload": float((image(device, precision, moved, scale) - single).abs().mean())
        for precision, moved in ways
    }
    return require(figures, **dict.fromkeys(figures, 0.05))


def image(device: str, precision: str, moved: bool, scale: Scale) -> torch.Tensor:
    """An image (1, 3, H, W) in [0, 1] of a red square, by the shipped encoder."""
    pipeline: Any = load_pipeline("mini", device, precision, moved)
    pipeline.set_progress_bar_config(disable=True)
    side, generator = pipeline.object_encoder.image_size, torch.Generator().manual_seed(0)
    subject = Image.new("RGBA", (side, side), "red")
    call = {"num_inference_steps": scale.sampling_steps, "generator": generator, "output_type": "pt"}
    return pipeline("a photo of a <object>", subject=subject, **call).images.float().cpu()


CHECKS: dict[str, Check] = {
    "precisions": precisions, "resume": resume, "offload": offload, "gradient checkpointing": recomputation,
    "drawing": drawing, "compile": compiled,
}  # fmt: skip
