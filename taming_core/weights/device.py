"""Which processor the networks run on, and in which precision."""

import torch

from taming_core.errors import TamingError
from taming_core.params.arguments import PRECISIONS

DTYPES: dict[str, torch.dtype] = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def pick_device(name: str) -> str:
    """`cuda`, `mps` or `cpu`: what was asked for, or with `auto` the fastest that is there.

    Raises:
        TamingError: this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there.get(name.split(":")[0]):
        raise TamingError(f"There is no device {name} here. Use --device auto, or one of: "
                          f"{', '.join(device for device, is_there in there.items() if is_there)}.")  # fmt: skip
    return name
