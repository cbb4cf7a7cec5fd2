"""The moving average of the weights that train (Polyak and Juditsky, 1992), by diffusers' EMAModel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffusers.training_utils import EMAModel
from torch import nn


def new_ema(weights: Sequence[nn.Parameter], decay: float) -> EMAModel | None:
    """An average that begins; None where `decay` is 0.

    The first step's weights replace the ones it began with. After n more steps it decays by (1 + n) / (10 + n), at most
    by `decay`: it reaches back over a share of the steps, so that a short training does not end where it began.
    """
    return EMAModel(weights, decay=decay) if decay > 0 else None


@contextmanager
def ema_weights(ema: EMAModel | None, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Put the average in the place of the weights inside the block; without an average they stay."""
    if ema is None:
        yield
        return
    ema.store(weights)
    ema.copy_to(weights)
    try:
        yield
    finally:
        ema.restore(weights)
