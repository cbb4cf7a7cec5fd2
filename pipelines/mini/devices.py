"""How the trainings of `mini` use a device: the same code on a CPU, and on a GPU without making it wait."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from taming_core.weights.device import pick_device


def ready(device: str) -> str:
    """The name of the device, made ready: one thread on a CPU, TF32 and the fastest convolutions on a GPU."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # workers are processes; it would warn of every one
    found = pick_device(device)
    if found == "cpu":
        torch.set_num_threads(1)
    if found.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return found


@contextmanager
def aside(device: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """Render and copy on a stream of its own, so that a copy to the GPU waits for no training step.

    What is made within and used after goes through the function that this gives. On a CPU it all changes nothing.
    """
    if not device.startswith("cuda"):
        yield lambda tensor: tensor
        return
    main, side = torch.cuda.current_stream(), _side_stream(device)
    made: list[Tensor] = []

    def kept(tensor: Tensor) -> Tensor:
        made.append(tensor)
        return tensor

    with torch.cuda.stream(side):
        yield kept
    main.wait_stream(side)
    for tensor in made:
        tensor.record_stream(main)  # its memory is free again only when the step has used it


@cache
def _side_stream(device: str) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def half(device: str) -> torch.autocast:
    """bfloat16 where it is faster, on a GPU."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=device.startswith("cuda"))
