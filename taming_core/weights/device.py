"""Devices and precisions of the networks."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from taming_core.errors import TamingError
from taming_core.params.arguments import PRECISIONS

DTYPES: dict[str, torch.dtype] = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def pick_device(name: str) -> str:
    """The device of a name: `auto` is the fastest available of `cuda`, `mps` and `cpu`.

    A GPU with a number becomes the current one, on which libraries put what they are not told a device for.

    Raises:
        TamingError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, is_available in available.items() if is_available)
    kind, _, number = name.partition(":")
    if not available.get(kind):
        raise TamingError(f"There is no device {name} on this machine. Use --device auto, or one of: "
                          f"{', '.join(d for d, is_available in available.items() if is_available)}.")  # fmt: skip
    if number:
        if int(number) >= (count := torch.cuda.device_count()):
            raise TamingError(f"There is no device {name} on this machine. Use --device cuda:0 to cuda:{count - 1}.")
        torch.cuda.set_device(int(number))
    return name


@contextmanager
def fast_kernels(precision: str) -> Generator[None, None, None]:
    """Within the block a GPU multiplies float32 in TF32, and cuDNN measures which convolution is fastest; not in fp32.

    TF32 has the mantissa of fp16. In fp32 it is off for convolutions too, which PyTorch computes in TF32 by default;
    cuDNN chooses by rules: a measurement may turn out otherwise in a resumed run.
    """
    untyped: Any = torch.backends
    cuda, cudnn = untyped.cuda.matmul, untyped.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    cuda.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = precision != "fp32"
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
