"""The nine styles of the mini world; kernels scale with the photo, so that a style looks the same at any size."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Picture = Float[Tensor, "n 3 size size"]  # values in [0, 1]


def box_blur(x: Float[Tensor, "n c h w"], kernel: int, mode: str = "reflect") -> Float[Tensor, "n c h w"]:
    """Mean over an odd kernel; `mode` pads the border."""
    return F.avg_pool2d(F.pad(x, (kernel // 2,) * 4, mode=mode), kernel, 1)


def stylize(x: Picture, style: str) -> Picture:
    """`x` in the style that the caption starts with, such as "a pencil sketch of"."""
    return _FILTERS[style](x)


def _odd(pixels: int, x: Picture) -> int:
    """A kernel of `pixels` at 128 px, as an odd number at the size of `x`."""
    return max(round((pixels * x.shape[-1] / 128 - 1) / 2), 1) * 2 + 1


def _grey(x: Picture) -> Float[Tensor, "n 1 size size"]:
    return (x * torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _plain(x: Picture) -> Picture:
    return x


def _sketch(x: Picture) -> Picture:
    """Dark lines where colours change, on paper with a little of the image's luminance."""
    smooth = box_blur(x, 3)
    across = F.pad(smooth[..., :, 2:] - smooth[..., :, :-2], (1, 1, 0, 0), mode="replicate")
    down = F.pad(smooth[..., 2:, :] - smooth[..., :-2, :], (0, 0, 1, 1), mode="replicate")
    steep = (across.square() + down.square()).sum(1, keepdim=True).sqrt() * (x.shape[-1] / 128)
    lines = (2.2 * steep - 0.12).clamp(0, 0.85)
    return ((0.86 + 0.14 * _grey(x)) * (1 - lines)).expand(-1, 3, -1, -1)


def _sepia(x: Picture) -> Picture:
    return _grey(x) * torch.tensor([1.08, 0.87, 0.62], device=x.device).view(1, 3, 1, 1)


def _black_and_white(x: Picture) -> Picture:
    return _grey(x).expand(-1, 3, -1, -1)


def _pixel_art(x: Picture) -> Picture:
    return F.interpolate(F.interpolate(x, size=(32, 32), mode="area"), size=x.shape[-2:], mode="nearest")


def _oil(x: Picture) -> Picture:
    """Kuwahara filter: the mean of the least variant of the four windows at a pixel (Kuwahara et al., 1976)."""
    reach, size = _odd(5, x) - 1, x.shape[-1]
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    mean = F.avg_pool2d(padded, reach + 1, 1)
    variance = (F.avg_pool2d(padded * padded, reach + 1, 1) - mean * mean).sum(1, keepdim=True)
    corners = [(down, right) for down in (0, reach) for right in (0, reach)]
    means, variances = (
        torch.stack([t[:, :, down : down + size, right : right + size] for down, right in corners])
        for t in (mean, variance)
    )
    return means.gather(0, variances.argmin(0, keepdim=True).expand(-1, -1, 3, -1, -1))[0]


def _pop_art(x: Picture) -> Picture:
    vivid = (_grey(x) + (x - _grey(x)) * 1.8).clamp(0, 1)
    return torch.round(vivid * 3) / 3


def _fog(x: Picture) -> Picture:
    return box_blur(x, _odd(3, x)) * 0.42 + 0.52


def _neon(x: Picture) -> Picture:
    """Glowing outlines in the hue of what they surround."""
    across = F.pad((x[..., :, 1:] - x[..., :, :-1]).abs(), (0, 1, 0, 0))
    down = F.pad((x[..., 1:, :] - x[..., :-1, :]).abs(), (0, 0, 0, 1))
    edges = box_blur(across + down, 3) * 4 * (x.shape[-1] / 128)
    hue = x / (x.amax(1, keepdim=True) + 0.05)
    return (edges * (0.4 + 0.9 * hue)).clamp(0, 1) * 0.95 + 0.03


_FILTERS = {
    "a photo of": _plain,
    "a pencil sketch of": _sketch,
    "a sepia photo of": _sepia,
    "a black and white photo of": _black_and_white,
    "a pixel art of": _pixel_art,
    "an oil painting of": _oil,
    "a pop art poster of": _pop_art,
    "a foggy photo of": _fog,
    "a neon drawing of": _neon,
}
STYLES = tuple(_FILTERS)  # the first is the plain photo
