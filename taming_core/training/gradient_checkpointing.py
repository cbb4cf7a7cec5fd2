"""Gradient checkpointing: blocks are computed twice instead of keeping what backward needs (Chen et al., 2016)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint


def enable_gradient_checkpointing(denoiser: ModelMixin) -> None:
    """Let the denoiser keep no more than the blocks' inputs while gradients are wanted."""
    denoiser.enable_gradient_checkpointing(checkpoint_block)


def checkpoint_block(block: nn.Module, *inputs: Any) -> Any:
    """The block's output; in backward it is computed again, with the attention processors that it has now.

    Diffusers' own function takes those that it has by then: a layer that was watched for one pass would no longer be,
    and the second computation another than the first.
    """
    now = {m: m.processor for m in block.modules() if hasattr(m, "set_processor")}
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), processors(now)))


@contextmanager
def processors(wanted: Mapping[Any, Any]) -> Iterator[None]:
    """Give attention layers these processors inside the block."""
    before = {attn: attn.processor for attn in wanted}
    try:
        for attn, processor in wanted.items():
            attn.set_processor(processor)
        yield
    finally:
        for attn, processor in before.items():
            attn.set_processor(processor)
