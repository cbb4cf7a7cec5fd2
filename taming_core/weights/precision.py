"""Conversion of networks to another precision: weights that their library keeps in float32 stay in float32.

T5 keeps `wo`, the last projection of each feed-forward layer, since its output exceeds the range of fp16.
"""

import re
from typing import Any, cast

import torch
from torch import Tensor, nn


def float32_names(network: nn.Module, dtype: torch.dtype) -> re.Pattern[str]:
    """Matches the names of the weights that `from_pretrained` loads in float32 where it loads others in `dtype`.

    transformers' `_keep_in_fp32_modules` counts in fp16 alone, its strict form and that of diffusers in bf16 too.
    """
    untyped: Any = network
    kept: set[str] = set(getattr(untyped, "_keep_in_fp32_modules_strict", None) or ())
    in_bf16 = not hasattr(untyped, "_keep_in_fp32_modules_strict")  # a network of diffusers
    if dtype == torch.float16 or (dtype == torch.bfloat16 and in_bf16):
        kept |= set(getattr(untyped, "_keep_in_fp32_modules", None) or ())
    return re.compile("|".join(rf"(^|\.){name}(\.|$)" for name in sorted(kept)) or "$^")


def convert(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert floating-point weights and buffers in place, one by one."""
    kept = float32_names(network, dtype)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if value.is_floating_point():
            value.data = value.data.to(torch.float32 if kept.search(name) else dtype)


def run_without_autocast(network: nn.Module, dtype: torch.dtype) -> None:
    """Let the modules that are kept in float32 compute in it, also where autocast is enabled."""
    kept, untyped = float32_names(network, dtype), cast(Any, network)
    modules: dict[str, nn.Module] = dict(untyped.named_modules())
    for name, module in modules.items():
        if kept.search(name) and not list(module.children()):
            _disable_autocast(module)


def _disable_autocast(module: Any) -> None:
    forward = module.forward

    def in_own_precision(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x)

    module.forward = in_own_precision
