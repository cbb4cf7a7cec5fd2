"""The losses of docs/explanation/method.md section 5, one function per term; all of them per sample, float32."""

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import roi_align  # pyright: ignore[reportUnknownVariableType]  # its output size is untyped


def mask_weights(
    mask: Float[Tensor, "batch 1 height width"], extra: float, size: tuple[int, int]
) -> Float[Tensor, "batch 1 rows columns"]:
    """1 + extra * m at the size of the latents, normalized to mean 1 per sample, so that object size has no effect."""
    weights = 1 + extra * F.adaptive_avg_pool2d(mask, size)
    return weights / weights.mean((1, 2, 3), keepdim=True)


def denoising_loss(
    predicted: Float[Tensor, "batch channels rows columns"],
    target: Float[Tensor, "batch channels rows columns"],
    weights: Float[Tensor, "batch 1 rows columns"],
) -> Float[Tensor, " batch"]:
    """L_d, the weighted squared error (Jia et al., 2023, equation 1; the mask weights are our choice)."""
    return ((predicted.float() - target.float()) ** 2 * weights).mean((1, 2, 3))


def snr_weights(
    signal: Float[Tensor, " batch"], prediction: str, gamma: float | None, zero_terminal: bool
) -> Float[Tensor, " batch"]:
    """Weights of the samples in the denoising loss by min-SNR weighting (Hang et al., 2023, section 3.4).

    Without a gamma all are 1. With it, for every prediction type, the squared error of the implied clean latents has
    weight min(SNR, gamma). With zero terminal SNR that would be 0 at the last timestep, which would learn nothing;
    there the weight is min(SNR + 1, gamma), the velocity's own weight SNR + 1 (Salimans and Ho, 2022, section 4),
    clipped as in diffusers' pull request 5238. A prediction of the noise has a weight above 0 at any SNR.

    Args:
        signal: abar_t, below 1; SNR = abar_t / (1 - abar_t).
        prediction: epsilon, v_prediction or sample.
        gamma: the largest weight.
        zero_terminal: whether the noise schedule ends in pure noise.
    """
    if gamma is None:
        return torch.ones_like(signal)
    snr = signal / (1 - signal)
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1)  # min(snr, gamma) / snr, and its limit where snr is 0
    of_clean = (snr + float(zero_terminal)).clamp(max=gamma)
    return of_clean / (snr + 1 if prediction == "v_prediction" else 1)


def identity_weights(
    signal: Float[Tensor, " batch"], timesteps: Tensor, present: Bool[Tensor, " batch"], max_timestep: int
) -> Float[Tensor, " batch"]:
    """Weights of the samples in the identity loss: abar_t where it has an object and t < `max_timestep`, else 0.

    Our choice: the noisier the latents, the less the estimate of the image shows of the object.
    """
    return torch.where(present & (timesteps < max_timestep), signal, torch.zeros_like(signal))


def object_crops(
    images: Float[Tensor, "batch 3 height width"],
    mask: Float[Tensor, "batch 1 height width"],
    frame: Float[Tensor, "batch 4"],
    size: int,
) -> Float[Tensor, "batch 3 {size} {size}"]:
    """The object on a mid-grey background, framed like a subject; areas outside of the image are mid-grey, too."""
    boxes = list(frame.unsqueeze(1))
    return roi_align(images.float() * mask, boxes, size, aligned=True)


def identity_loss(
    features: Float[Tensor, "batch features"], target: Float[Tensor, "batch features"]
) -> Float[Tensor, " batch"]:
    """L_id = 1 - cos(F(x0_hat m), F(o')), from these two features (docs/explanation/method.md, section 5)."""
    return 1 - F.cosine_similarity(features.float(), target.float(), dim=-1)


def localization_loss(
    shares: Sequence[Float[Tensor, "objects _"]], mask: Float[Tensor, "objects 1 height width"]
) -> Float[Tensor, " objects"]:
    """Mean attention to the object tokens outside of the object minus that inside, in [-1, 1].

    Source: cross-attention localization of Xiao et al., "FastComposer", 2023.

    Args:
        shares: for each cross-attention layer, the share of each pixel's attention to the object tokens.
        mask: m, the object in the image.
    """
    return torch.stack([_outside_minus_inside(layer.float(), mask) for layer in shares]).mean(0)


def _outside_minus_inside(
    share: Float[Tensor, "objects pixels"], mask: Float[Tensor, "objects 1 height width"]
) -> Float[Tensor, " objects"]:
    inside = F.adaptive_avg_pool2d(mask, grid_of(share.shape[1], mask.shape[2:])).flatten(1)
    return _mean(share, 1 - inside) - _mean(share, inside)


def grid_of(pixels: int, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a feature map with this many pixels, for an image of `size` (height, width).

    >>> grid_of(48, (96, 128))
    (6, 8)
    """
    rows = round(sqrt(pixels * size[0] / size[1]))
    return rows, pixels // rows


def _mean(
    share: Float[Tensor, "objects pixels"], weights: Float[Tensor, "objects pixels"]
) -> Float[Tensor, " objects"]:
    """The weighted mean; 0 if all weights are 0, as outside of an object that fills the image."""
    return (share * weights).sum(1) / weights.sum(1).clamp(min=1e-6)
