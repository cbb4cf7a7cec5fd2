"""The options of an export, and their checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from taming_core.errors import TamingError
from taming_core.params.arguments import require_export_out
from taming_core.storage.paths import AnyPath

Target = Literal["ip-adapter", "lora", "diffusers"]
Dtype = Literal["fp16", "bf16", "fp32"]


@dataclass(frozen=True)
class ExportOptions:
    """The options of `taming export` as the user gave them; `require_valid` checks them."""

    to: str  # one of Target
    base: str | None  # the text-to-image model that training started from; None takes it from training.json
    rank: int | None  # of a LoRA that is extracted from the denoiser's change
    dtype: str  # one of Dtype
    scores: Path | None  # folder of an evaluation
    push: str | None  # OWNER/NAME on the hub


def require_valid(options: ExportOptions, out: AnyPath) -> None:
    """Check the options before any work is done.

    Raises:
        TamingError: an option has no effect or an unknown value, `out` holds something else, or there is no token.
    """
    for name, value, choices in (("--to", options.to, Target), ("--dtype", options.dtype, Dtype)):
        if value not in get_args(choices):
            raise TamingError(f"{name} {value} is unknown. Give one of {', '.join(get_args(choices))}.")
    if options.rank is not None and options.to == "diffusers":
        raise TamingError(
            "--rank has no effect with --to diffusers, whose folder holds the denoiser itself. Leave it out."
        )
    require_export_out(out)
    if options.push is not None:
        if not isinstance(out, Path):
            raise TamingError(f"--push uploads a folder of this machine, and {out} is none. Name one with --out.")
        from taming_core.exports import hub

        hub.require_token(options.push)
