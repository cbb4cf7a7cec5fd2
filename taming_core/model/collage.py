"""The subject's latents, laid where the object shall be, as a further input of the denoiser.

Object tokens say what the parts of an object look like, but attention knows no order of its keys, so that the denoiser
has to learn from very many images which part is left of which. Laid into the image, the latents say it at once. As the
collage of AnyDoor (Chen et al., 2024, section 3.2), but with latents instead of high-frequency maps, and added behind
the denoiser's first layer by a convolution that starts at zero, as in ControlNet (Zhang et al., 2023, section 3.1): the
base model stays as it is, and a sample without a collage gets exactly its output.
"""

from math import ceil
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FILL = 0.92  # share of the subject's side that the object fills, as in materialize.subject_fill
Boxes = Float[Tensor, "batch count 4"]  # x0, y0, x1, y1 as shares of the image's width and height; empty for no place


class CollageSize(NamedTuple):
    """What a denoiser's first layer needs of a collage."""

    latents: int  # channels C of the latents
    channels: int  # of the layer's output
    patch: int  # side in latents of what becomes one vector; 1 for a UNet


class CollageLayer(nn.Module):
    """A convolution of the collage and of the squares that it covers, which starts at zero."""

    def __init__(self, size: CollageSize) -> None:
        super().__init__()
        kernel, padding = (3, 1) if size.patch == 1 else (size.patch, 0)
        self.conv = nn.Conv2d(size.latents + 1, size.channels, kernel, size.patch, padding, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(
        self, collage: Float[Tensor, "batch channels rows columns"], embedded: Float[Tensor, "batch *places width"]
    ) -> Float[Tensor, "batch *places width"]:
        """The output of the denoiser's first layer, (B, D, h, w) or (B, patches, D), with the collage added."""
        added = self.conv(collage.to(self.conv.weight.dtype))
        return embedded + (added if embedded.dim() == 4 else added.flatten(2).transpose(1, 2)).to(embedded.dtype)


class CollageHook:
    """Adds the collage that is set to the output of the layer on which it is registered.

    Not a module, so that the denoiser does not register a weight that belongs to the object encoder.
    """

    def __init__(self, layer: CollageLayer, first: nn.Module) -> None:
        self.layer = layer
        self.collage: Tensor | None = None  # (B, C + 1, h, w)
        self.handle = first.register_forward_hook(self)

    def __call__(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if self.collage is None else self.layer(self.collage, output)


def inject_collage(first: Any, layer: CollageLayer | None) -> None:
    """Let a denoiser's first layer add the collage through `layer`, instead of any before; None adds nothing."""
    hook: CollageHook | None = getattr(first, "collage_hook", None)
    if hook is not None:
        hook.handle.remove()
    first.collage_hook = None if layer is None else CollageHook(layer, first)


def set_collage(first: Any, collage: Float[Tensor, "batch channels rows columns"] | None) -> None:
    """Set the collage of the samples that the denoiser sees next; None for none."""
    hook: CollageHook | None = getattr(first, "collage_hook", None)
    if hook is not None:
        hook.collage = collage


def lay(
    latents: Float[Tensor, "batch count channels side side"], boxes: Boxes, size: tuple[int, int]
) -> Float[Tensor, "batch _ rows columns"]:
    """The subjects' latents at their places, and in the last channel how much of each place they cover.

    An object's square is as large as its box demands of what fills `FILL` of it; a later object covers an earlier one.

    Args:
        latents: of the subjects of each image.
        boxes: of the objects.
        size: rows and columns of the image's latents.
    """
    rows, columns = size
    collage = latents.new_zeros(len(latents), latents.shape[2] + 1, rows, columns, dtype=torch.float32)
    for k in range(latents.shape[1]):
        x0, y0, x1, y1 = (x * n for x, n in zip(boxes[:, k].float().unbind(1), (columns, rows) * 2, strict=True))
        side = torch.maximum(x1 - x0, y1 - y0).clamp(min=1e-3) / FILL
        none = torch.zeros_like(side)
        across = torch.stack([columns / side, none, (columns - x0 - x1) / side], 1)
        down = torch.stack([none, rows / side, (rows - y0 - y1) / side], 1)
        grid = F.affine_grid(torch.stack([across, down], 1), [len(latents), 1, rows, columns], align_corners=False)
        laid = F.grid_sample(latents[:, k].float(), grid, padding_mode="border", align_corners=False)
        covered = (grid.abs() < 1).all(-1)[:, None] & (x1 > x0).view(-1, 1, 1, 1)
        collage = torch.where(covered, torch.cat([laid, torch.ones_like(laid[:, :1])], 1), collage)
    return collage


def packed_rows(latents: int, width: int) -> int:
    """How many rows of an embedding hold this many numbers."""
    return ceil(latents / width)


def pack(
    tokens: Float[Tensor, "batch tokens width"], latents: Float[Tensor, "batch channels side side"]
) -> Float[Tensor, "batch _ width"]:
    """The tokens, followed by rows with the numbers of the latents: one tensor is an object, however it is used."""
    numbers, width = latents.flatten(1), tokens.shape[2]
    rows = packed_rows(numbers.shape[1], width)
    return torch.cat([tokens, F.pad(numbers, (0, rows * width - numbers.shape[1])).view(-1, rows, width)], 1)


def unpack(
    embeds: Float[Tensor, "batch _ width"], tokens: int, channels: int, side: int
) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch channels side side"]]:
    """The inverse of `pack`, for latents of this shape."""
    numbers = embeds[:, tokens:].flatten(1)[:, : channels * side * side]
    return embeds[:, :tokens], numbers.reshape(-1, channels, side, side)
