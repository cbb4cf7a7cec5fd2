"""The losses of docs/method.md section 5, one function per term; all of them per sample, float32."""

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import roi_align


def mask_weights(
    mask: Float[Tensor, "batch 1 height width"], extra: float, size: tuple[int, int]
) -> Float[Tensor, "batch 1 rows columns"]:
    """1 + extra * m at the size of the latents, scaled to mean 1 per sample, so that a small object weighs as much."""
    weights = 1 + extra * F.adaptive_avg_pool2d(mask, size)
    return weights / weights.mean((1, 2, 3), keepdim=True)


def denoising_loss(
    predicted: Float[Tensor, "batch channels rows columns"],
    target: Float[Tensor, "batch channels rows columns"],
    weights: Float[Tensor, "batch 1 rows columns"],
) -> Float[Tensor, " batch"]:
    """L_d, the weighted squared error (Jia et al., 2023, equation 1, with the mask weight that is our choice)."""
    return ((predicted.float() - target.float()) ** 2 * weights).mean((1, 2, 3))


def snr_weights(signal: Float[Tensor, " batch"], prediction: str, gamma: float | None) -> Float[Tensor, " batch"]:
    """How much each sample counts in the denoising loss by min-SNR weighting (Hang et al., 2023).

    Without a gamma, all count alike. With it, whatever is predicted, the squared error of the image that this implies
    counts min(SNR, gamma) times; so a velocity told of pure noise counts nothing.

    Args:
        signal: abar_t, below 1; SNR = abar_t / (1 - abar_t).
        prediction: epsilon, v_prediction or sample.
    """
    if gamma is None:
        return torch.ones_like(signal)
    snr = signal / (1 - signal)
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1)  # min(snr, gamma) / snr, and its limit where snr is 0
    return snr.clamp(max=gamma) / (snr + 1 if prediction == "v_prediction" else 1)


def identity_weights(
    signal: Float[Tensor, " batch"], timesteps: Tensor, present: Bool[Tensor, " batch"], max_timestep: int
) -> Float[Tensor, " batch"]:
    """How much each sample counts in the identity loss: abar_t where it has an object and t < `below`, else 0.

    Our choice: the noisier the step, the less its estimate of the image says of the object.
    """
    return torch.where(present & (timesteps < max_timestep), signal, torch.zeros_like(signal))


def object_crops(
    images: Float[Tensor, "batch 3 height width"],
    mask: Float[Tensor, "batch 1 height width"],
    frame: Float[Tensor, "batch 4"],
    size: int,
) -> Float[Tensor, "batch 3 {size} {size}"]:
    """The object on mid-grey, framed like a subject; beyond the image's edge there is grey, too."""
    boxes = list((frame).unsqueeze(1))
    return roi_align((images.float() * mask), boxes, size, aligned=True)


def identity_loss(
    features: Float[Tensor, "batch features"], target: Float[Tensor, "batch features"]
) -> Float[Tensor, " batch"]:
    """L_id = 1 - cos(F(x0_hat m), F(o')) from the features of the two (docs/method.md, section 5)."""
    return 1 - F.cosine_similarity(features.float(), target.float(), dim=-1)


def localization_loss(
    shares: Sequence[Float[Tensor, "shown pixels"]], mask: Float[Tensor, "shown 1 height width"]
) -> Float[Tensor, " shown"]:
    """Attention to the object's tokens outside of the object minus inside, in [-1, 1].

    Source: Xiao et al., "FastComposer", 2023, whose cross-attention localization it is.

    Args:
        shares: for each cross-attention layer, the share of its attention that a pixel gives to the object's tokens.
        mask: m, where the object is in the image.
    """
    return torch.stack([_outside_minus_inside(layer.float(), mask) for layer in shares]).mean(0)


def _outside_minus_inside(
    share: Float[Tensor, "shown pixels"], mask: Float[Tensor, "shown 1 height width"]
) -> Float[Tensor, " shown"]:
    inside = F.adaptive_avg_pool2d(mask, grid_of(share.shape[1], mask.shape[2:])).flatten(1)
    return _mean(share, 1 - inside) - _mean(share, inside)


def grid_of(pixels: int, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a layer of so many pixels, of an image of `size` (height, width) that was halved evenly.

    >>> grid_of(48, (96, 128))
    (6, 8)
    """
    rows = round(sqrt(pixels * size[0] / size[1]))
    return rows, pixels // rows


def _mean(share: Float[Tensor, "shown pixels"], weights: Float[Tensor, "shown pixels"]) -> Float[Tensor, " shown"]:
    """The weighted mean; 0 where nothing has weight, as outside of an object that fills the image."""
    return (share * weights).sum(1) / weights.sum(1).clamp(min=1e-6)
