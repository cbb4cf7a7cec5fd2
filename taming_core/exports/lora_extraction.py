"""What training changed of a denoiser, as the best LoRA of a rank, matrix by matrix (Eckart and Young, 1936)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from taming_core.errors import TamingError

SMALLEST = 1e-12  # singular values below it count as none


@dataclass(frozen=True)
class Extracted:
    """A LoRA and how much of the change it holds."""

    layers: dict[str, Tensor]  # by the names that diffusers loads, without the denoiser's own
    kept: float  # share of the change's energy, its sum of squares over all weights of the denoiser
    covered: float  # the share that lies in linear and convolution weights, which a LoRA of full rank would keep


def weight_differences(tuned: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """The difference of every weight that is another one in half precision, by name.

    Encoders are stored in half precision, so that a base that training never touched differs from it by rounding.

    Raises:
        TamingError: the two are of different shapes.
    """
    ours, theirs = tuned.state_dict(), base.state_dict()
    if {n: w.shape for n, w in ours.items()} != {n: w.shape for n, w in theirs.items()}:
        raise TamingError("The encoder's denoiser is not of the shape of the base's. Name the base model that it was "
                          "trained on with --base.")  # fmt: skip
    found = {n: w.detach().half().float() - theirs[n].detach().half().float() for n, w in ours.items()}
    return {n: change for n, change in found.items() if change.any()}


def extract(changed: Mapping[str, Tensor], denoiser: nn.Module, rank: int) -> Extracted:
    """The LoRA of this rank that keeps the most of the change of linear and convolution weights.

    Raises:
        TamingError: nothing has changed.
    """
    if not changed:
        raise TamingError("The denoiser is the base's own, so that there is nothing for a LoRA to say. Export with "
                          "--to diffusers.")  # fmt: skip
    # Loaders of UNets know diffusers' names, those of transformers peft's.
    names = ("lora.down", "lora.up") if isinstance(denoiser, UNet2DConditionModel) else ("lora_A", "lora_B")
    layers, kept, covered = dict[str, Tensor](), 0.0, 0.0
    for name, change in changed.items():
        module_name, _, kind = name.rpartition(".")
        if kind != "weight" or not _takes_lora(denoiser.get_submodule(module_name)):
            continue
        down, up, share = low_rank(change.flatten(1), rank)
        convolution = change.dim() == 4
        layers[f"{module_name}.{names[0]}.weight"] = down.unflatten(1, change.shape[1:]) if convolution else down
        layers[f"{module_name}.{names[1]}.weight"] = up[..., None, None] if convolution else up
        energy = _energy(change)
        kept, covered = kept + share * energy, covered + energy
    total = sum(map(_energy, changed.values()))
    return Extracted(layers, kept / total, covered / total)


def low_rank(
    change: Float[Tensor, "rows columns"], rank: int
) -> tuple[Float[Tensor, "{rank} columns"], Float[Tensor, "rows {rank}"], float]:
    """Two factors, (down, up), whose product is nearest to the change, and the share of its energy that they keep.

    By the eigenvectors of the smaller square, which takes a fraction of the time of a decomposition of the whole. Both
    factors are scaled alike, so that half precision can hold them, and padded with zeros where the rank is too high.
    """
    wide = change.shape[0] <= change.shape[1]
    matrix = change.double() if wide else change.double().T
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    count = min(rank, len(values))
    values, vectors = values[-count:].clamp(min=0), vectors[:, -count:]
    root = values.sqrt().clamp(min=SMALLEST).sqrt()
    left, right = vectors * root, (vectors / root).T @ matrix
    share = float(values.sum() / matrix.square().sum())
    down, up = (right, left) if wide else (left.T, right.T)
    more = rank - count
    pad = nn.functional.pad
    return pad(down, (0, 0, 0, more)).float(), pad(up, (0, more)).float(), min(share, 1.0)


def _takes_lora(module: Any) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _energy(change: Tensor) -> float:
    return float(change.double().square().sum())
