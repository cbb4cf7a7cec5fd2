"""How fast training, loading and drawing are, what share of the device's peak is used, and the plain loop beside it."""

import statistics
import time
from collections import Counter
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
from taming_core.exports.export import stock_pipeline
from taming_core.images.families import TamingPipeline
from taming_core.model.attention import eject
from taming_core.model.inputs import EncoderInputs
from taming_core.model.subject_model import SubjectModel
from taming_core.params.load import Params
from taming_core.params.sections import MaterializeParams, Sampling
from taming_core.params.train import TrainParams
from taming_core.projects import memory
from taming_core.rows import triplets
from taming_core.tables import schema
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import batches, feature_cache
from taming_core.training import loop as loop_module

GIB = 2**30
WARM_UP = 2  # steps that are not measured
# Dense operations a second, as the makers state them: of half precision, and of float32 (TF32 off).
PEAKS = {"H100": (989e12, 67e12), "H200": (989e12, 67e12), "A100": (312e12, 19.5e12), "L40S": (362e12, 91.6e12),
         "4090": (165e12, 82.6e12), "3090": (71e12, 35.6e12)}  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """What one loop does."""

    loop: str
    images_per_second: float  # the median of its rounds
    step_ms: float
    memory_gib: float  # at the fullest moment: on a GPU of all it holds there, on a CPU of what a step makes
    step_tflop: float | None  # floating-point operations of a step, in 10**12; None where they were not counted
    share_of_peak: float | None  # of what the device could compute meanwhile; None where its peak is not known


def comparison_params(p: TrainParams, batch_size: int | None, tune: str | None) -> TrainParams:
    """The params with another batch or another share of the model trained, checked like a file.

    Batches are computed at once, and there is no identity loss, which the plain loop does not have.

    Raises:
        TamingError: there is no such share.
    """
    if tune not in (None, "adapter", "whole"):
        raise TamingError(f"--tune {tune} is not known. Use adapter or whole.")
    found = p.model_dump() | {
        "regularization": 0.0,
        "prior": None,
        "object_drop": 0.0,
        "steps": 10**9,
        "save_every": 10**9,
    }
    found |= {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None, "warmup": 0}
    found |= {"localization_weight": 0.0, "validation": {**found["validation"], "every": 0}}
    size = batch_size or p.batch_size
    found |= {"batch_size": size, "micro_batch_size": size}
    if tune is not None:
        found |= {"tune": tune, "lora": None, "text_encoder_rate": 0.0, "denoiser_rate": float(tune != "adapter")}
    return TrainParams.model_validate(found)


def random_model(params: Params) -> SubjectModel:
    """The networks that the params name, at full size and with random weights, so that nothing need be fetched."""
    p = params.train
    configs = memory.configs_of(p)
    return memory.model_of(configs, memory.schedule_of(configs["scheduler"]), p)[0]


def random_rows(folder: Path, p: MaterializeParams, count: int = 16) -> Rows:
    """Rows of smooth random pictures with a square object each."""
    made, side = [], p.size
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        photo = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
        mask = np.zeros((side, side), bool)
        mask[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
        box = (side // 4, side // 4, 3 * side // 4, 3 * side // 4)
        known = {
            "row_id": f"{number}", "photo_id": f"{number}", "file_name": f"{number}.jpg", "split": "train",
            "regularization": False, "references": [], "caption": f"a photo of thing {number}", "identity": f"{number}",
            "object_caption": "a photo of a <object>",
        }  # fmt: skip
        pictures = triplets.target(photo, p, box) | triplets.subject(photo, mask, p, box)
        made.append(dict.fromkeys(schema.ROWS.names) | known | pictures)
    schema.write(
        [schema.table(made, schema.ROWS)], schema.with_fingerprint(schema.ROWS, "bench"), folder / "train-00000.parquet"
    )
    return load_rows(folder, "train")


def our_steps(model: SubjectModel, rows: Rows, accelerator: Accelerator, p: TrainParams) -> Iterator[Any]:
    """Our training, with the caches that the params name filled before the first step."""
    run = loop_module.start_run(model, None, accelerator, p)
    shown, size = EncoderInputs.of(model.object_encoder.config), model.object_encoder.image_size
    kinds = feature_cache.feature_kinds(model, p, model.family.token_ids, shown, size)
    for kind in kinds.values():
        with accelerator.autocast():
            list(
                feature_cache.fill(
                    kind, (rows[int(i)] for i in rows.objects), p.batch_size, accelerator.device, Counter()
                )
            )
    feature_cache.offload(feature_cache.offloaded_networks(model, p, rows))
    make = partial(
        batches.batch_at, rows=rows, tokenize=model.family.token_ids, size=size, p=p, inputs=shown,
        caches=feature_cache.open_caches(kinds),
    )  # fmt: skip
    depth = batches.prefetch_depth(accelerator.device)
    yield from loop_module.train(
        run, p, batches.prefetch(loop_module.pin_batches(accelerator.device, make), p.steps, depth)
    )


def compare(
    model: SubjectModel, rows: Rows, accelerator: Accelerator, p: TrainParams, steps: int, rounds: int
) -> list[Speed]:
    """Our loop and the plain one, on copies of the model, in turns, so that what disturbs the machine disturbs both."""
    device = accelerator.device
    before = memory_in_use(device)
    plain = plain_losses(deepcopy(model), rows, accelerator, p)
    next(plain)
    plain_held = memory_in_use(device) - before
    ours = our_steps(model, rows, accelerator, p)
    next(ours)
    memory_held = {"ours": memory_in_use(device) - before - plain_held, "plain": plain_held}
    loops: dict[str, Iterator[Any]] = {"ours": ours, "plain": plain}
    work = {name: step_flops(loop, device) for name, loop in loops.items()}
    peaks = {name: peak_memory(loop, device) for name, loop in loops.items()}
    if device.type == "cuda":
        peaks = {name: peaks[name] - sum(h for other, h in memory_held.items() if other != name) for name in loops}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds[name].append(timed(partial(run_steps, loop, steps), device) / steps)
    most = peak_of(device, p.precision)
    return [speed(name, statistics.median(seconds[name]), peaks[name], work[name], most, p) for name in loops]


def speed(loop: str, seconds: float, bytes_held: float, work: float, most: float | None, p: TrainParams) -> Speed:
    """The figures of a loop whose steps take so many seconds."""
    share = None if most is None else work / seconds / most
    return Speed(loop, p.batch_size / seconds, 1000 * seconds, bytes_held / GIB, work / 1e12, share)


def run_steps(loop: Iterator[Any], count: int) -> None:
    """So many steps."""
    for _ in range(count):
        next(loop)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_in_use(device: torch.device) -> int:
    """Bytes held on a GPU; 0 on a CPU, where nobody counts them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def step_flops(loop: Iterator[Any], device: torch.device) -> float:
    """Floating-point operations of a step, of which matrix products, convolutions and attention count."""
    with FlopCounterMode(display=False) as counted:
        run_steps(loop, WARM_UP)
        synchronize(device)
    return counted.get_total_flops() / WARM_UP


def peak_memory(loop: Iterator[Any], device: torch.device) -> float:
    """Bytes at the fullest moment of a step."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run_steps(loop, WARM_UP)
        synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with memory.AllocationTracker() as held:
        run_steps(loop, 1)
    return held.peak


def peak_of(device: torch.device, precision: str) -> float | None:
    """Operations a second that the device can do; a CPU's are measured, by a large matrix product."""
    if device.type == "cpu":
        kind = torch.float32 if precision == "fp32" else torch.bfloat16
        a = torch.randn(1024, 1024).to(kind)
        return 2 * 1024**3 / min(timed(lambda: a @ a, device) for _ in range(8))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    known = [p for part, p in PEAKS.items() if part in name]
    return known[0][precision == "fp32"] if known else None


def loading(
    rows: Rows, p: TrainParams, size: int, token_ids: batches.Tokenize, shown: EncoderInputs
) -> list[Mapping[str, Any]]:
    """Rows a second that the loader decodes, by one thread and by as many as a GPU gets."""
    make = partial(batches.batch_at, rows=rows, tokenize=token_ids, size=size, p=p, inputs=shown)
    found = []
    for threads in sorted({1, 2, batches.prefetch_depth(torch.device("cuda"))}):
        ahead, count = batches.prefetch(make, 10**9, threads), 4 * threads
        ahead(0)
        start = time.perf_counter()
        for step in range(1, 1 + count):
            ahead(step)
        found.append({"threads": threads, "rows_per_second": count * p.batch_size / (time.perf_counter() - start)})
    return found


@torch.no_grad()
def drawing(
    pipeline: TamingPipeline, subject: Image.Image, prompt: str, count: int, p: Sampling, rounds: int
) -> list[Speed]:
    """Images a second of a thing, and of diffusers' own pipeline of the same base, which knows no thing."""
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
            seconds[name].append(timed(draw, device))
    found = {name: statistics.median(values) for name, values in seconds.items()}
    return [Speed(name, count / s, 1000 * s, memory_in_use(device) / GIB, None, None) for name, s in found.items()]


def stock_of(pipeline: TamingPipeline) -> Any:
    """Diffusers' own pipeline of the same base, with a copy of the denoiser that sees no objects."""
    denoiser = deepcopy(pipeline.denoiser)
    eject(denoiser)
    found = stock_pipeline(pipeline)
    found.register_modules(**{pipeline.family.denoiser_name: denoiser})
    found.set_progress_bar_config(disable=True)
    return found
