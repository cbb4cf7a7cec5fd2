"""Device setup: the same code on a CPU, and on a GPU without stalls."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from taming_core.weights.device import pick_device


def prepare_device(device: str) -> str:
    """Set a device up and return its name: one thread on a CPU; TF32 and cuDNN autotuning on a GPU."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else every data worker prints a warning
    found = pick_device(device)
    if found == "cpu":
        torch.set_num_threads(1)
    if found.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return found


@contextmanager
def side_stream(device: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """Render and copy on a separate CUDA stream, so that copies to the GPU overlap with training steps.

    Pass every tensor that is used after the block through the yielded function. On a CPU nothing changes.
    """
    if not device.startswith("cuda"):
        yield lambda tensor: tensor
        return
    main, side = torch.cuda.current_stream(), _side_stream(device)
    made: list[Tensor] = []

    def keep_alive(tensor: Tensor) -> Tensor:
        made.append(tensor)
        return tensor

    with torch.cuda.stream(side):
        yield keep_alive
    main.wait_stream(side)
    for tensor in made:
        tensor.record_stream(main)  # its memory is reused only after the step that reads it


@cache
def _side_stream(device: str) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def autocast(device: str) -> torch.autocast:
    """bfloat16 autocast on a GPU, nothing on a CPU."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=device.startswith("cuda"))
