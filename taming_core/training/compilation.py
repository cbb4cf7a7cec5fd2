"""Compilation of the denoiser's transformer blocks by `torch.compile`, once for each kind of block and shape."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch

from taming_core.params.train import TrainParams

KINDS = 256  # of blocks, in all sizes of images, and with and without objects; beyond, torch computes them uncompiled


def transformer_blocks(denoiser: Any) -> list[Any]:
    """The blocks that diffusers compiles: those that repeat, and hold nearly all of the attention."""
    names = denoiser._repeated_blocks or denoiser._no_split_modules  # SD 3 names no repeated ones
    return [module for module in denoiser.modules() if type(module).__name__ in names]


def compile_blocks(denoiser: Any, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile each transformer block when it is first computed.

    Shapes are not generalized, and kernels are not chosen by measuring them, so that a resumed run computes what the
    run before it did, whichever size of images comes first.
    """
    import torch._dynamo  # takes a second

    config: Any = torch._dynamo.config
    config.recompile_limit = config.accumulated_recompile_limit = KINDS
    options = {"options": {"deterministic": True}} if backend == "inductor" else {}
    for block in transformer_blocks(denoiser):
        block.compile(backend=backend, fullgraph=True, dynamic=False, **options)


@contextmanager
def uncompiled(p: TrainParams) -> Generator[None, None, None]:
    """Within the block nothing is compiled, as for the few images of a validation grid, whose shapes are others."""
    if not p.compile:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
