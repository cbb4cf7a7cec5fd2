"""What a method trains of a pipeline, and the state that the pipeline has again afterwards."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from taming_core.images.families import TamingPipeline
from taming_core.model.attention import eject, injected_layers
from taming_core.training.gradient_checkpointing import checkpoint_block


class Tuned(NamedTuple):
    """What a method trains."""

    networks: list[str]  # component names of those with trained weights
    weights: list[nn.Parameter]
    trains_text: bool  # whether prompt embeddings depend on the weights
    save: Callable[[Path, bool], int]  # write the weights to a folder, whole or they alone; returns their bytes


@contextmanager
def frozen(pipeline: TamingPipeline, gradient_checkpointing: bool) -> Generator[None]:
    """Within the block all networks are frozen, and the denoiser has its own attention without the object encoder's."""
    networks, denoiser = list(pipeline.family.networks.values()), pipeline.denoiser
    trainable = [w for network in networks for w in network.parameters() if w.requires_grad]
    processors = [(attn, processor) for _, attn, processor in injected_layers(denoiser)]
    eject(denoiser)
    for network in networks:
        network.requires_grad_(False).eval()
    if gradient_checkpointing:
        denoiser.enable_gradient_checkpointing(checkpoint_block)
    try:
        yield
    finally:
        if gradient_checkpointing:
            denoiser.disable_gradient_checkpointing()
        for weight in trainable:
            weight.requires_grad_(True)
        for attn, processor in processors:
            attn.set_processor(processor)


@contextmanager
def with_values(networks: Iterable[Any], values: Callable[[str, torch.Tensor], torch.Tensor]) -> Generator[None]:
    """Within the block every weight of the networks has another value; then it has its own tensor again.

    Args:
        networks: the networks.
        values: from the network's name of a weight, and its tensor, to the tensor for the block.
    """
    weights = [(name, weight) for network in networks for name, weight in network.named_parameters()]
    own = [weight.data if weight.device.type == "cpu" else weight.data.cpu() for _, weight in weights]
    try:
        for name, weight in weights:
            weight.data = values(name, weight.data)
        yield
    finally:
        for (_, weight), tensor in zip(weights, own, strict=True):
            weight.grad = None
            weight.data = tensor.to(weight.device)
