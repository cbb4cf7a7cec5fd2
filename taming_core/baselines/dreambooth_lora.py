"""DreamBooth with a LoRA (Hu et al., 2022), by peft: of the denoiser's attention, and of the CLIPs' if asked for."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers  # pyright: ignore[reportUnknownVariableType]  # untyped
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers  # pyright: ignore[reportUnknownVariableType]  # untyped
from torch import Tensor, nn

from taming_core.baselines.dreambooth import networks
from taming_core.baselines.tuned import Tuned
from taming_core.images.families import TamingPipeline
from taming_core.model import lora
from taming_core.params.baseline import BaselineParams
from taming_core.params.train import LoraParams

CLIP_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")  # the projections of CLIP's attention


@contextmanager
def tuned(pipeline: TamingPipeline, noun: str | None, p: BaselineParams) -> Generator[Tuned]:  # noqa: ARG001  (all methods have these)
    """The weights of new LoRAs, in float32."""
    own = p.dreambooth_lora
    trained = networks(pipeline, own.text_encoder)
    try:
        for network in trained.values():
            layers = lora.LAYERS if network is pipeline.denoiser else CLIP_LAYERS
            lora.add_lora(network, LoraParams(rank=own.rank, alpha=own.alpha), p.seed, layers)
        weights = [w for network in trained.values() for w in lora_parameters(network)]
        yield Tuned([*trained], weights, own.text_encoder, lambda folder, _: save(pipeline, trained, folder))
    finally:
        for network in trained.values():
            remove_lora(network)


@contextmanager
def loaded(pipeline: Any, folder: Path) -> Generator[None]:
    """Within the block the pipeline has the LoRAs that were saved to `folder`."""
    try:
        pipeline.load_lora_weights(folder)
        yield
    finally:
        pipeline.unload_lora_weights()


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights of a network's LoRA, made float32 and trainable."""
    weights = [w for name, w in network.named_parameters() if "lora_" in name]
    for weight in weights:
        weight.data = weight.data.to(torch.float32)
        weight.requires_grad_(True)
    return weights


def remove_lora(network: Any) -> None:
    """Restore the layers without LoRA."""
    recurse_remove_peft_layers(network)
    if hasattr(network, "peft_config"):
        del network.peft_config
        network._hf_peft_config_loaded = False  # of diffusers and of transformers


def save(pipeline: Any, trained: Mapping[str, nn.Module], folder: Path) -> int:
    """Write the LoRAs in fp16 as diffusers loads them; returns their bytes."""
    layers = {f"{name}_lora_layers": lora_layers(network, name) for name, network in trained.items()}
    pipeline.save_lora_weights(folder, **layers)
    return sum(w.nbytes for of_network in layers.values() for w in of_network.values())


def lora_layers(network: nn.Module, name: str) -> dict[str, Tensor]:
    """The LoRA of a network in fp16, by the names that diffusers' loaders expect."""
    weights = lora.lora_weights(network)
    if name.startswith("text_encoder"):
        weights = convert_state_dict_to_diffusers(weights)
    return {n: w.half().contiguous() for n, w in weights.items()}
