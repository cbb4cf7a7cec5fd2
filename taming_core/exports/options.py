"""What is asked of an export, and whether it can go well."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from taming_core.errors import TamingError

RECORD = "export.json"
Target = Literal["ip-adapter", "lora", "diffusers"]
Dtype = Literal["fp16", "bf16", "fp32"]


@dataclass(frozen=True)
class ExportOptions:
    """What is asked for."""

    to: Target
    base: str | None  # the text-to-image model that training began on; None takes it from training.json
    rank: int | None  # of a LoRA of what training changed
    dtype: Dtype
    scores: Path | None  # folder of an evaluation
    push: str | None  # OWNER/NAME on the hub


def require_valid(options: ExportOptions, out: Path) -> None:
    """Refuse before any work what cannot go well.

    Raises:
        TamingError: an option has no effect or is no such option, `out` holds something else, or there is no token.
    """
    for name, value, known in (("--to", options.to, Target), ("--dtype", options.dtype, Dtype)):
        if value not in get_args(known):
            raise TamingError(f"{name} {value} is unknown. Give one of {', '.join(get_args(known))}.")
    if options.rank is not None and options.to == "diffusers":
        raise TamingError(
            "--rank has no effect with --to diffusers, whose folder holds the denoiser itself. Leave it out."
        )
    if out.exists() and not (out / RECORD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise TamingError(f"{out} holds something else than an export. Name a folder of its own with --out.")
    if options.push is not None:
        from taming_core.exports import hub

        hub.require_token(options.push)
