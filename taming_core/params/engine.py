"""What makes the shards of a data stage: options that change no byte of its table."""

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

from taming_core.errors import TamingError

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")


RAY_ADDRESS = re.compile(r"auto|local|(ray://)?[^/]+:\d+")


@dataclass(frozen=True)
class EngineOptions:
    """An engine and its options; those of the other engine are an error.

    Raises:
        TamingError: there is no such engine, it is not installed, or an option has no effect on it or no meaning.
    """

    engine: str = "local"
    workers: int | None = None  # processes that read and decode photos, per process with models; None: automatic
    ray_address: str | None = None  # of a running cluster; None: by RAY_ADDRESS, else one is started on this machine
    actors: int | None = None  # processes with models; None: as many as the cluster has room for
    gpus: float | None = None  # per actor, also a part of one; None: 1 where there are any
    cpus: float | None = None  # per actor, also a part of one; None: its share of those beside the GPUs, or 1

    def __post_init__(self) -> None:
        """Check the options."""
        if self.engine not in ENGINES:
            raise TamingError(f"There is no engine {self.engine}. Use --engine {' or '.join(ENGINES)}.")
        of_ray = {"--ray-address": self.ray_address, "--actors": self.actors, "--gpus": self.gpus, "--cpus": self.cpus}
        given = [flag for flag, value in of_ray.items() if value is not None]
        if self.engine != "ray" and given:
            raise TamingError(f"{given[0]} has no effect on --engine {self.engine}. Leave it out, or use --engine ray.")
        if self.engine == "ray":
            require_ray()
        if self.ray_address is not None and not RAY_ADDRESS.fullmatch(self.ray_address):
            raise TamingError(f"--ray-address {self.ray_address} is neither auto nor local nor host:port nor "
                              "ray://host:port. Correct it, or leave it out for one on this machine.")  # fmt: skip
        for flag, share in (("--gpus", self.gpus), ("--cpus", self.cpus)):
            if share is not None and share > 1 and share != int(share):
                raise TamingError(f"{flag} is {share:g}, and Ray gives whole ones, or a part of one. Use {flag} "
                                  f"{int(share)}.")  # fmt: skip


def require_ray() -> None:
    """Raises TamingError if Ray is not installed."""
    if find_spec("ray") is None:
        raise TamingError("--engine ray needs the package ray. Run pip install 'taming[ray]', or use --engine local.")


def for_device(options: EngineOptions, device: str) -> EngineOptions:
    """The options with the GPUs that a device means: Ray gives its actors GPUs, one or a part of one.

    >>> for_device(EngineOptions("ray"), "cpu").gpus
    0

    Raises:
        TamingError: the device is one that Ray cannot give, or has no use for --gpus.
    """
    if options.engine != "ray" or device == "auto":
        return options
    if device not in ("cpu", "cuda"):
        raise TamingError(f"Ray chooses the device of each actor, and --device is {device}. Use --device auto, cpu or "
                          "cuda, and --gpus.")  # fmt: skip
    wanted = 0 if device == "cpu" else options.gpus if options.gpus is not None else 1
    if bool(wanted) != (device == "cuda") or (device == "cpu" and options.gpus):
        raise TamingError(f"--gpus {options.gpus:g} does not go with --device {device}. Leave one of them out.")
    return replace(options, gpus=wanted)
