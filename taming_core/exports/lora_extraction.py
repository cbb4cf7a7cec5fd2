"""The change of a denoiser in training as the best LoRA of a rank, matrix by matrix (Eckart and Young, 1936)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from taming_core.errors import TamingError

SMALLEST = 1e-12  # lower bound of singular values, so that none is divided by zero


@dataclass(frozen=True)
class ExtractedLora:
    """A LoRA and how much of the change it keeps."""

    layers: dict[str, Tensor]  # by the names that diffusers loads, without the denoiser's name in front
    kept: float  # share of the change's energy, its sum of squares over all weights of the denoiser
    covered: float  # the share that lies in linear and convolution weights, which a LoRA of full rank would keep


def weight_differences(tuned: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """The difference, float32, of every weight that differs in half precision, by name.

    Encoders are stored in half precision, so that an unchanged denoiser differs from its base by rounding.

    Raises:
        TamingError: the two are of different shapes.
    """
    ours, theirs = tuned.state_dict(), base.state_dict()
    if {n: w.shape for n, w in ours.items()} != {n: w.shape for n, w in theirs.items()}:
        raise TamingError("The encoder's denoiser and the base's have different shapes. Name the base model with "
                          "--base.")  # fmt: skip
    changes = {n: w.detach().half().float() - theirs[n].detach().half().float() for n, w in ours.items()}
    return {n: change for n, change in changes.items() if change.any()}


def extract(changed: Mapping[str, Tensor], denoiser: nn.Module, rank: int) -> ExtractedLora:
    """The LoRA of this rank that keeps the most of the change of linear and convolution weights.

    Raises:
        TamingError: nothing has changed.
    """
    if not changed:
        raise TamingError("The denoiser was not fine-tuned, so that a LoRA would be empty. Export with --to diffusers.")
    # Loaders of UNets read diffusers' names, those of transformers peft's.
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
    return ExtractedLora(layers, kept / total, covered / total)


def low_rank(
    change: Float[Tensor, "rows columns"], rank: int
) -> tuple[Float[Tensor, "{rank} columns"], Float[Tensor, "rows {rank}"], float]:
    """Two factors, (down, up), whose product is nearest to the change, and the share of its energy that they keep.

    Computed from the eigenvectors of the smaller Gram matrix, in a fraction of the time of a full SVD. Both factors
    have the same scale, so that half precision can hold them, and zeros beyond the rank of the change.
    """
    wide = change.shape[0] <= change.shape[1]
    matrix = change.double() if wide else change.double().T
    values, vectors = eigh(matrix @ matrix.T)
    count = min(rank, len(values))
    values, vectors = values[-count:].clamp(min=0), vectors[:, -count:]
    root = values.sqrt().clamp(min=SMALLEST).sqrt()
    left, right = vectors * root, (vectors / root).T @ matrix
    share = float(values.sum() / matrix.square().sum())
    down, up = (right, left) if wide else (left.T, right.T)
    missing = rank - count
    pad = nn.functional.pad
    return pad(down, (0, 0, 0, missing)).float(), pad(up, (0, missing)).float(), min(share, 1.0)


def eigh(symmetric: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues in ascending order and eigenvectors as columns."""
    values, vectors = cast(Any, torch.linalg).eigh(symmetric)
    return values, vectors


def _takes_lora(module: Any) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _energy(change: Tensor) -> float:
    return float(change.double().square().sum())
