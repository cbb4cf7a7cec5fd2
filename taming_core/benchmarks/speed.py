"""The speed of training, loading and generation, the share of the device's peak, and the plain loop as a baseline."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from taming_core.benchmarks.plain_loop import plain_losses
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline
from taming_core.images.stock import stock_pipeline
from taming_core.model.attention import eject
from taming_core.model.subject_model import SubjectModel
from taming_core.params.load import Params
from taming_core.params.sections import MaterializeParams, Sampling
from taming_core.params.train import TrainParams
from taming_core.projects import memory
from taming_core.rows import triplets
from taming_core.tables import schema
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import data_loader, feature_cache
from taming_core.training import loop as training_loop
from taming_core.training.batches import BatchAt, ExampleSource, batch_at
from taming_core.training.loop import StepReport

GIB = 2**30
CPU = torch.device("cpu")
WARM_UP = 2  # steps that are not measured
LORA = {"rank": 16, "alpha": 16.0}
# Dense operations per second by the data sheets: half precision, and float32 (TF32 off).
PEAKS = {"H100": (989e12, 67e12), "H200": (989e12, 67e12), "A100": (312e12, 19.5e12), "L40S": (362e12, 91.6e12),
         "4090": (165e12, 82.6e12), "3090": (71e12, 35.6e12)}  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """The measurements of one loop."""

    loop: str
    images_per_second: float  # the median of its rounds
    step_ms: float
    memory_gib: float  # peak: on a GPU of all its memory, on a CPU of the allocations of a step
    step_tflop: float | None  # floating-point operations of a step, in 10**12; None if they were not counted
    share_of_peak: float | None  # of the device's peak operations; None if its peak is not known


def comparison_params(p: TrainParams, batch_size: int | None, tune: str | None) -> TrainParams:
    """The params with another batch size or other trained weights, validated as from a file.

    Without gradient accumulation, and without losses that the plain loop lacks. `tune` is "adapter", "lora", "whole" or
    None.

    Raises:
        TamingError: `tune` is another value.
    """
    if tune not in (None, "adapter", "lora", "whole"):
        raise TamingError(f"--tune {tune} is unknown. Use adapter, lora or whole.")
    values: dict[str, Any] = p.model_dump() | {
        "regularization": 0.0,
        "prior": None,
        "object_drop": 0.0,
        "steps": 10**9,
        "save_every": 10**9,
    }
    values |= {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None, "warmup": 0}
    values |= {"localization_weight": 0.0, "validation": {**values["validation"], "every": 0}}
    size = batch_size or p.batch_size
    values |= {"batch_size": size, "micro_batch_size": size}
    if tune is not None:
        values |= {"tune": tune, "lora": LORA if tune == "lora" else None, "text_encoder_rate": 0.0,
                   "denoiser_rate": float(tune != "adapter")}  # fmt: skip
    return TrainParams.model_validate(values)


def random_model(params: Params, device: torch.device = CPU) -> SubjectModel:
    """The networks that the params name, at full size and with random weights, so that no weights are fetched.

    The weights are drawn on the device, where a GPU takes a moment; the noise schedule stays on the CPU.
    """
    p = params.train
    configs = memory.configs_of(p)
    schedule = memory.schedule_of(configs["scheduler"])
    with device:
        return memory.model_of(configs, schedule, p)[0]


def random_rows(folder: Path, p: MaterializeParams, count: int = 16) -> Rows:
    """Write and open rows of smooth random photos with a square object each."""
    records: list[dict[str, Any]] = []
    side = p.size
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        photo = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
        mask = np.zeros((side, side), bool)
        mask[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
        box = (side // 4, side // 4, 3 * side // 4, 3 * side // 4)
        values: dict[str, Any] = {
            "row_id": f"{number}", "photo_id": f"{number}", "file_name": f"{number}.jpg", "split": "train",
            "regularization": False, "references": [], "caption": f"a photo of thing {number}", "identity": f"{number}",
            "object_caption": "a photo of a <object>",
        }  # fmt: skip
        images = triplets.target(photo, p, box) | triplets.subject(photo, mask, p, box)
        records.append(dict.fromkeys(schema.ROWS.names) | values | images)
    schema.write(
        [schema.table(records, schema.ROWS)],
        schema.add_fingerprint(schema.ROWS, "bench"),
        folder / "train-00000.parquet",
    )
    return load_rows(folder, "train")


def our_steps(model: SubjectModel, rows: Rows, accelerator: Accelerator, p: TrainParams) -> Iterator[StepReport]:
    """Our training loop, with the caches of the params filled before the first step."""
    run = training_loop.start_run(model, None, accelerator, p)
    source, _ = feature_cache.prepare(run, ExampleSource.of(model, rows, p))
    batches = data_loader.prefetched_batches(source, run.processes, run.accelerator.device)
    yield from training_loop.train(run, p, batches)


def compare(
    model: SubjectModel, rows: Rows, accelerator: Accelerator, p: TrainParams, steps: int, rounds: int
) -> list[Speed]:
    """Measure our loop and the plain one on copies of the model, in turns, so that other load affects both."""
    device = accelerator.device
    before = memory_in_use(device)
    plain = plain_losses(deepcopy(model), rows, accelerator, p)
    next(plain)
    plain_bytes = memory_in_use(device) - before
    ours = our_steps(model, rows, accelerator, p)
    next(ours)
    held = {"ours": memory_in_use(device) - before - plain_bytes, "plain": plain_bytes}
    loops: dict[str, Iterator[Any]] = {"ours": ours, "plain": plain}
    flops = {name: step_flops(loop, device) for name, loop in loops.items()}
    peaks = {name: peak_memory(loop, device) for name, loop in loops.items()}
    if device.type == "cuda":
        peaks = {name: peaks[name] - sum(h for other, h in held.items() if other != name) for name in loops}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds[name].append(time_call(partial(run_steps, loop, steps), device) / steps)
    peak = peak_of(device, p.precision)
    return [speed_of(name, statistics.median(seconds[name]), peaks[name], flops[name], peak, p) for name in loops]


def speed_of(loop: str, seconds: float, memory: float, flops: float, peak: float | None, p: TrainParams) -> Speed:
    """The measurements of a loop: `seconds` and `flops` of a step, bytes of memory, and the device's peak FLOP/s."""
    share = None if peak is None else flops / seconds / peak
    return Speed(loop, p.batch_size / seconds, 1000 * seconds, memory / GIB, flops / 1e12, share)


def run_steps(loop: Iterator[Any], count: int) -> None:
    """Run `count` steps."""
    for _ in range(count):
        next(loop)


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call until the device has finished it."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_in_use(device: torch.device) -> int:
    """Bytes allocated on a GPU; 0 on a CPU, where they are not counted."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def step_flops(loop: Iterator[Any], device: torch.device) -> float:
    """Floating-point operations of a step: matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        run_steps(loop, WARM_UP)
        synchronize(device)
    return counter.get_total_flops() / WARM_UP


def peak_memory(loop: Iterator[Any], device: torch.device) -> float:
    """Peak bytes of a step."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run_steps(loop, WARM_UP)
        synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with memory.AllocationTracker() as tracker:
        run_steps(loop, 1)
    return tracker.peak


def peak_of(device: torch.device, precision: str) -> float | None:
    """Peak operations per second of the device, None if unknown; a CPU's is measured with a large matrix product."""
    if device.type == "cpu":
        kind = torch.float32 if precision == "fp32" else torch.bfloat16
        a = torch.randn(1024, 1024).to(kind)
        return 2 * 1024**3 / min(time_call(lambda: a @ a, device) for _ in range(8))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peaks = [p for part, p in PEAKS.items() if part in name]
    return peaks[0][precision == "fp32"] if peaks else None


def loading_speed(source: ExampleSource) -> list[Mapping[str, Any]]:
    """Rows per second that the loader decodes: with one thread, with as many as a GPU gets, and with processes."""
    make, steps = partial(batch_at, source=source), 10**9
    results: list[Mapping[str, Any]] = []
    for threads in sorted({1, 2, data_loader.prefetch_depth(torch.device("cuda"))}):
        speed = rows_per_second(data_loader.prefetch(make, steps, threads), threads, source)
        results.append({"threads": threads, "processes": None, "rows_per_second": speed})
    for processes in sorted({2, data_loader.worker_processes()} - {0, 1}) if sys.platform == "linux" else ():
        speed = rows_per_second(data_loader.in_processes(make, steps, processes), processes, source)
        results.append({"threads": None, "processes": processes, "rows_per_second": speed})
    return results


def rows_per_second(batch_of: BatchAt, workers: int, source: ExampleSource) -> float:
    """The speed of a loader with this many threads or processes, after each has made its first batches."""
    warm, count = 1 + 2 * workers, 8 * workers
    for step in range(warm):
        batch_of(step)
    start = time.perf_counter()
    for step in range(warm, warm + count):
        batch_of(step)
    return count * source.params.batch_size / (time.perf_counter() - start)


@torch.no_grad()
def generation_speed(
    pipeline: TamingPipeline, subject: Image.Image, prompt: str, count: int, p: Sampling, rounds: int
) -> list[Speed]:
    """Images per second with an object, and of the stock diffusers pipeline of the same base without one."""
    device = pipeline.device
    stock = stock_of(pipeline)
    plain_prompt = prompt.replace("<object>", "thing")
    loops: dict[str, Callable[[], object]] = {
        "with an object": lambda: pipeline(
            prompt, subject=subject, num_images_per_prompt=count, num_inference_steps=p.steps, output_type="pt"
        ),
        "stock diffusers": lambda: stock(
            plain_prompt, num_images_per_prompt=count, num_inference_steps=p.steps, output_type="pt"
        ),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for draw in loops.values():
        draw()
    for _ in range(rounds):
        for name, draw in loops.items():
            seconds[name].append(time_call(draw, device))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [Speed(name, count / s, 1000 * s, memory_in_use(device) / GIB, None, None) for name, s in medians.items()]


def stock_of(pipeline: TamingPipeline) -> Any:
    """The stock diffusers pipeline of the same base, with a copy of the denoiser without object attention."""
    denoiser = deepcopy(pipeline.denoiser)
    eject(denoiser)
    stock = stock_pipeline(pipeline)
    stock.register_modules(**{pipeline.family.denoiser_name: denoiser})
    stock.set_progress_bar_config(disable=True)
    return stock
