"""Whether the tokens of a subject say where each part of it is, measured without drawing anything.

Attention does not depend on the order of its keys (Vaswani et al., 2017): a denoiser knows of a subject's shape only
what the tokens themselves say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor

from taming_core.images.pipeline import TamingPipeline

RIDGE = 1e-2  # of the regression, as a share of the tokens' mean variance
SHOWN = 128  # opacity from which a patch is the subject's


@dataclass(frozen=True)
class TokenGeometry:
    """What the tokens of the patches that show the subject say of their place."""

    mirrored: float  # mean cosine of a patch's token and that of the same patch of the mirrored picture
    column: float  # R2 of the patch's column, read from its token by a linear map fitted on other subjects
    row: float  # the same of its row

    def __str__(self) -> str:
        """In words.

        >>> str(TokenGeometry(0.983, -0.12, 0.31))
        'cosine 0.98 with those of the mirrored subject; column read with R² -0.12, row with R² 0.31'
        """
        return (f"cosine {self.mirrored:.2f} with those of the mirrored subject; column read with R² "
                f"{self.column:.2f}, row with R² {self.row:.2f}")  # fmt: skip


def measure(pipeline: TamingPipeline, subjects: Sequence[Image.Image]) -> TokenGeometry | None:
    """The geometry of the tokens of subjects (RGBA); None where tokens stand for no patches, or too few are shown."""
    if pipeline.object_encoder.config["projector"] != "full" or len(subjects) < 2:
        return None
    count = pipeline.object_encoder.config["tokens"]
    tokens, twins = (
        torch.cat([pipeline.encode_objects([picture])[:, :count].float().cpu() for picture in pictures])
        for pictures in (subjects, [ImageOps.mirror(subject) for subject in subjects])
    )
    side = isqrt(tokens.shape[1])
    shown = torch.stack([shown_patches(subject, side) for subject in subjects])
    if min(shown[::2].sum(), shown[1::2].sum()) < 2:  # of either half of the subjects: one patch has no place to tell
        return None
    return geometry(tokens, twins, shown)


def shown_patches(subject: Image.Image, side: int) -> Bool[Tensor, "side side"]:
    """Which of `side` x `side` patches show the subject (RGBA) for the most part."""
    alpha = subject.convert("RGBA").getchannel("A").resize((side, side), Image.Resampling.BOX)
    return torch.as_tensor(np.asarray(alpha) >= SHOWN)


def geometry(
    tokens: Float[Tensor, "subjects patches width"],
    twins: Float[Tensor, "subjects patches width"],
    shown: Bool[Tensor, "subjects side side"],
) -> TokenGeometry:
    """The measurements of tokens.

    Args:
        tokens: of two subjects or more, a token per patch, row by row.
        twins: of the mirrored subjects.
        shown: the patches that show the subject.
    """
    side = shown.shape[1]
    grid, twin = torch.unflatten(tokens, 1, (side, side)), torch.unflatten(twins, 1, (side, side)).flip(2)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    subject = torch.arange(len(tokens)).view(-1, 1, 1).expand_as(shown)[shown]
    places = torch.stack([p.expand_as(shown)[shown] for p in (column, row)], 1).double()
    read = readable(grid[shown].double(), places, subject % 2 == 0)
    mirrored = torch.cosine_similarity(grid, twin, dim=-1)[shown].mean().item()
    return TokenGeometry(mirrored, read[0].item(), read[1].item())


def readable(
    tokens: Float[Tensor, "patches width"], values: Float[Tensor, "patches values"], half: Bool[Tensor, " patches"]
) -> Float[Tensor, " values"]:
    """R2 of each value on either half, by a ridge regression that is fitted on the other."""
    linalg: Any = torch.linalg  # partly untyped
    errors, spread = torch.zeros(values.shape[1]).double(), torch.zeros(values.shape[1]).double()
    for fitted in (half, ~half):
        mean, centre = tokens[fitted].mean(0), values[fitted].mean(0)
        x, y, seen = tokens[fitted] - mean, values[fitted] - centre, tokens[~fitted] - mean
        penalty = RIDGE * x.square().mean() * len(x) * torch.eye(x.shape[1]).double()
        found: Tensor = seen @ linalg.solve(x.T @ x + penalty, x.T @ y) + centre
        errors += (values[~fitted] - found).square().sum(0)
        spread += (values[~fitted] - values[~fitted].mean(0)).square().sum(0)
    return 1 - errors / spread
