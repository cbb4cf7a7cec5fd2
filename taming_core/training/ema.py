"""The exponential moving average (EMA) of the trained weights (Polyak and Juditsky, 1992), by diffusers' EMAModel."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor


def new_ema(weights: Sequence[nn.Parameter], decay: float) -> EMAModel | None:
    """A new EMA; None if `decay` is 0.

    The weights after the first step replace the initial ones. n steps later the decay is (1 + n) / (10 + n), at most
    `decay`: the average covers a share of the steps, so that after a short training it has left the initial weights. A
    GPU updates all weights in a few kernels (`foreach`).
    """
    mixed = any(isinstance(weight, DTensor) for weight in weights)  # sharded and whole weights share no kernel
    return EMAModel(weights, decay=decay, foreach=not mixed) if decay > 0 else None


@contextmanager
def ema_weights(ema: EMAModel | None, weights: Sequence[nn.Parameter]) -> Generator[None, None, None]:
    """Replace the weights by their EMA inside the block; without an EMA they stay."""
    if ema is None:
        yield
        return
    ema.store(weights)
    ema.copy_to(weights)
    try:
        yield
    finally:
        ema.restore(weights)
