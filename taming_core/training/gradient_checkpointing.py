"""Gradient checkpointing: the backward pass recomputes blocks instead of storing activations (Chen et al., 2016)."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  # ContextManager[Unknown]


def enable_gradient_checkpointing(denoiser: ModelMixin) -> None:
    """Let the denoiser store only the inputs of its blocks for the backward pass."""
    untyped: Any = denoiser
    untyped.enable_gradient_checkpointing(checkpoint_block)


def checkpoint_block(block: nn.Module, *inputs: Any) -> Any:
    """The block's output; the backward pass recomputes it with the attention processors that the block has now.

    Diffusers' function would use the processors at the time of the backward pass: without an `AttentionRecorder` that
    was set for the forward pass only, the recomputation would differ.
    """
    now = {m: m.processor for m in block.modules() if hasattr(m, "set_processor")}
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), use_processors(now)))


@contextmanager
def use_processors(processors: Mapping[Any, Any]) -> Generator[None, None, None]:
    """Set these processors, by attention layer, inside the block."""
    before = {attn: attn.processor for attn in processors}
    try:
        for attn, processor in processors.items():
            attn.set_processor(processor)
        yield
    finally:
        for attn, processor in before.items():
            attn.set_processor(processor)
