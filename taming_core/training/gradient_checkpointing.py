"""Gradient checkpointing: the backward pass recomputes blocks instead of storing activations (Chen et al., 2016)."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  # ContextManager[Unknown]

from taming_core.bases.family import Family


def enable_gradient_checkpointing(family: Family) -> None:
    """Let denoiser and autoencoder store only the inputs of their blocks for the backward pass."""
    for network in (family.denoiser, family.vae):
        network.enable_gradient_checkpointing(checkpoint_block)


def decode(
    family: Family, latents: Float[Tensor, "batch channels rows columns"]
) -> Float[Tensor, "batch 3 height width"]:
    """`family.decode`; with gradient checkpointing one image after the other.

    A block of the autoencoder at full resolution has the largest activations of all, so that the memory of a step would
    otherwise still grow with the number of images.
    """
    parts = torch.split(latents, 1) if family.vae.is_gradient_checkpointing else (latents,)
    return torch.cat([family.decode(part) for part in parts])


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
