"""DreamBooth with a LoRA of the denoiser's attention (Hu et al., "LoRA", 2022), by peft."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from torch import nn

from taming_core.baselines.tuned import Tuned
from taming_core.images.families import TamingPipeline
from taming_core.model import lora
from taming_core.params.baseline import BaselineParams
from taming_core.params.train import LoraParams


@contextmanager
def tuned(pipeline: TamingPipeline, noun: str | None, p: BaselineParams) -> Generator[Tuned]:  # noqa: ARG001  (all methods have these)
    """The weights of a new LoRA, in float32."""
    denoiser, own = pipeline.denoiser, p.dreambooth_lora
    try:
        lora.add_lora(denoiser, LoraParams(rank=own.rank, alpha=own.alpha), p.seed)
        weights = lora_parameters(denoiser)
        yield Tuned([pipeline.family.denoiser_name], weights, False, partial(save, pipeline))
    finally:
        denoiser.unload_lora()


@contextmanager
def loaded(pipeline: Any, folder: Path) -> Generator[None]:
    """Within the block the pipeline has the LoRA that was saved to `folder`."""
    try:
        with only_errors():  # else diffusers warns that the text encoders have no LoRA
            pipeline.load_lora_weights(folder)
        yield
    finally:
        pipeline.unload_lora_weights()


@contextmanager
def only_errors() -> Generator[None]:
    """Within the block diffusers logs errors only."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights of a network's LoRA, made float32 and trainable."""
    weights = [w for name, w in network.named_parameters() if "lora_" in name]
    for weight in weights:
        weight.data = weight.data.to(torch.float32)
        weight.requires_grad_(True)
    return weights


def save(pipeline: TamingPipeline, folder: Path, _whole: bool) -> int:
    """Write the LoRA in fp16 as diffusers loads it; returns its bytes."""
    layers = {name: weight.half() for name, weight in lora.lora_weights(pipeline.denoiser).items()}
    lora.save_lora(pipeline, layers, folder)
    return sum(weight.nbytes for weight in layers.values())
