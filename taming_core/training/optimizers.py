"""Optimizers: AdamW (Loshchilov and Hutter, 2019), and AdamW with 8-bit states."""

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
        TamingError: its library is not installed, or does not support the device.
    """
    if p.optimizer == "adamw8bit":
        return load_adamw_8bit(device)([*map(dict, groups)], lr=p.learning_rate, weight_decay=p.weight_decay)
    fused = device.type in ("cpu", "cuda")  # one kernel for all weights: 4 times as fast on a CPU
    return torch.optim.AdamW([*map(dict, groups)], lr=p.learning_rate, weight_decay=p.weight_decay, fused=fused)


def load_adamw_8bit(device: torch.device) -> Any:
    """The class of AdamW with 8-bit states (Dettmers et al., 2022), from bitsandbytes.

    Raises:
        TamingError: it is not installed, or does not support the device.
    """
    if device.type == "mps":
        raise TamingError("train.optimizer adamw8bit needs a GPU of CUDA or a CPU. Set it to adamw.")
    module: Any = sys.modules.get("bitsandbytes", "")
    if module is None:  # commands hide it from libraries that would import it needlessly
        del sys.modules["bitsandbytes"]
    # It warns that a kernel for 4-bit inference cannot be fetched, which no optimizer uses.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise TamingError("train.optimizer adamw8bit needs bitsandbytes. Run `pip install 'taming[8bit]'`, or set it "
                          "to adamw.") from error  # fmt: skip
    return AdamW8bit
