"""Devices and precisions of the networks."""

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
