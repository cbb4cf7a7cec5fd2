"""DreamBooth (Ruiz et al., 2023): all weights of the denoiser, and of the CLIP text encoders if asked for."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter
from torch import Tensor, nn

from taming_core.baselines.record import read_record
from taming_core.baselines.tuned import Tuned, with_values
from taming_core.images.families import TamingPipeline
from taming_core.images.stock import stock_pipeline
from taming_core.params.baseline import BaselineParams
from taming_core.weights.digests import weight_files
from taming_core.weights.precision import convert


def networks(pipeline: TamingPipeline, text_encoder: bool) -> dict[str, nn.Module]:
    """The networks that DreamBooth trains, by their component names."""
    family = pipeline.family
    names = family.trainable_text_encoders if text_encoder else []
    return {family.denoiser_name: family.denoiser, **{name: family.text_encoders[name] for name in names}}


@contextmanager
def tuned(pipeline: TamingPipeline, noun: str | None, p: BaselineParams) -> Generator[Tuned]:  # noqa: ARG001  (all methods have these)
    """All weights, in float32."""
    trained = networks(pipeline, p.dreambooth.text_encoder)
    with with_values(trained.values(), lambda _, w: w.to(torch.float32, copy=True)):
        weights = [weight for network in trained.values() for weight in network.parameters()]
        for weight in weights:
            weight.requires_grad_(True)
        try:
            yield Tuned([*trained], weights, p.dreambooth.text_encoder, partial(save, pipeline, trained))
        finally:
            for weight in weights:
                weight.requires_grad_(False)


@contextmanager
def loaded(pipeline: Any, folder: Path) -> Generator[None]:
    """Within the block the pipeline has the weights that were saved to `folder`."""
    with ExitStack() as stack:
        for name in read_record(folder).trained:
            stack.enter_context(_loaded_network(getattr(pipeline, name), weight_files(folder / name)))
        yield


@contextmanager
def _loaded_network(network: nn.Module, files: Sequence[Path]) -> Generator[None]:
    state: dict[str, Tensor] = {name: weight for file in files for name, weight in load_file(file).items()}
    with with_values([network], lambda name, weight: state[name].to(weight)):
        yield


def save(pipeline: TamingPipeline, trained: dict[str, nn.Module], folder: Path, whole: bool) -> int:
    """Write the trained networks in fp16; returns their bytes.

    With `whole` the others are written as they are, so that stock diffusers loads the folder.
    """
    if whole:
        stock = stock_pipeline(pipeline, deepcopy(pipeline.scheduler))  # our own stays as it is
        stock.register_modules(**{name: half(network) for name, network in trained.items()})
        stock.save_pretrained(folder)
    else:
        for name, network in trained.items():
            half(network).save_pretrained(folder / name)
    return sum(file.stat().st_size for name in trained for file in weight_files(folder / name))


def half(network: nn.Module) -> Any:
    """A copy in fp16."""
    copy: Any = deepcopy(network)
    convert(copy, torch.float16)
    return copy
