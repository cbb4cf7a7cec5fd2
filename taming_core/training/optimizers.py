"""What changes the weights: AdamW (Loshchilov and Hutter, 2019), in full or with its averages in 8 bits."""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from taming_core.errors import TamingError
from taming_core.params.train import TrainParams


def make_optimizer(groups: Sequence[Mapping[str, Any]], p: TrainParams, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that the params name.

    Raises:
        TamingError: its library is not installed, or does not know the device.
    """
    if p.optimizer == "adamw8bit":
        return load_adamw_8bit(device)([*map(dict, groups)], lr=p.learning_rate, weight_decay=p.weight_decay)
    fused = device.type in ("cpu", "cuda")  # one kernel for all weights: 4 times as fast on a CPU
    return torch.optim.AdamW([*map(dict, groups)], lr=p.learning_rate, weight_decay=p.weight_decay, fused=fused)


def load_adamw_8bit(device: torch.device) -> Any:
    """AdamW with averages in 8 bits (Dettmers et al., 2022), of bitsandbytes.

    Raises:
        TamingError: it is not installed, or does not know the device.
    """
    if device.type == "mps":
        raise TamingError("train.optimizer adamw8bit needs a GPU of CUDA or a CPU. Set it to adamw.")
    if sys.modules.get("bitsandbytes", "") is None:  # a command hides it from those that would import it in passing
        del sys.modules["bitsandbytes"]
    # It warns that a kernel of inference in 4 bits cannot be fetched, which no optimizer uses.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise TamingError("train.optimizer adamw8bit needs bitsandbytes. Run `pip install 'taming[8bit]'`, or set it "
                          "to adamw.") from error  # fmt: skip
    return AdamW8bit
