"""Copy the trained models into the package, in half precision and in small files.

Shipped weights keep 8 of the 10 mantissa bits of fp16: a relative error of at most 0.2 %, which changes no metric, and
the compressed wheel is a tenth smaller. The classifier keeps one, so that the wheel has less than 100 MB; it is
measured after that.

Example:  python -m pipelines.mini.ship
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float16
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.mini.stage_params import OUT
from taming_core.errors import TamingError
from taming_core.fingerprints import folder_fingerprint
from taming_core.images.families import TamingPipeline
from taming_core.weights.mini import BASE, MINI

COPIED = ("world", "clip", "detector", "segmenter", "classifier", "captioner", "matcher", "judge", "strict_judge")
MAX_BYTES = 20_000_000  # of one file in the repository
SHARD = "15MB"
DROPPED_BITS, CLASSIFIER_BITS = 2, 9  # of the mantissa
MAX_FP16 = 0x7BFF  # bits of the largest finite fp16 number


def main(
    made: Annotated[Path, typer.Option(help="Folder of the trained models.")] = OUT,
    weights: Annotated[Path, typer.Option(help="Folder of the package's models.")] = MINI,
    base: Annotated[Path, typer.Option(help="Folder of the shipped base model.")] = BASE,
    out: Annotated[Path, typer.Option(help="File for the fingerprints of the shipped folders.")] = OUT / "shipped.json",
) -> None:
    """Replace all shipped models; raises TamingError and replaces none if one is missing."""
    missing = [name for name in (*COPIED, "autoencoder", "encoder", "base") if not (made / name).is_dir()]
    if missing:
        raise TamingError(f"{made} has no {missing[0]}. Run `dvc repro pipelines/mini/dvc.yaml` first.")
    parts = made / "shipping"
    collect(made, parts)
    require_small(parts)
    for name in (*COPIED, "encoder"):
        round_files(parts / name, CLASSIFIER_BITS if name == "classifier" else DROPPED_BITS)
        replace(parts / name, weights / name)
    replace(parts / "base", base)
    shipped = {name: folder_fingerprint(weights / name) for name in (*COPIED, "encoder")}
    out.write_text(json.dumps({**shipped, "base": folder_fingerprint(base)}, indent=2) + "\n", encoding="utf-8")


def collect(made: Path, parts: Path) -> None:
    """Copy the trained models to `parts`, the encoder as a half-precision pipeline."""
    shutil.rmtree(parts, ignore_errors=True)
    for name in (*COPIED, "base"):
        shutil.copytree(made / name, parts / name)
    shutil.copyfile(made / "autoencoder" / "metrics.json", parts / "base" / "vae" / "metrics.json")
    pipeline = TamingPipeline.from_pretrained(made / "encoder", torch_dtype=torch.float16)
    pipeline.save_pretrained(parts / "encoder", max_shard_size=SHARD)


def require_small(folder: Path) -> None:
    """Raise TamingError if a file is too large for the repository."""
    large = [f for f in sorted(folder.rglob("*")) if f.stat().st_size > MAX_BYTES]
    if large:
        raise TamingError(f"{large[0]} has more than {MAX_BYTES // 10**6} MB. Save it in shards, or make it smaller.")


def round_files(folder: Path, dropped_bits: int = DROPPED_BITS) -> None:
    """Round the float16 weights of every safetensors file below a folder."""
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        weights = load_file(file)
        kept = {name: rounded(t, dropped_bits) if t.dtype == torch.float16 else t for name, t in weights.items()}
        save_file(kept, file, metadata)


def rounded(weights: Float16[Tensor, "*shape"], dropped_bits: int = DROPPED_BITS) -> Float16[Tensor, "*shape"]:
    """The nearest numbers whose lowest mantissa bits are zero; ties to even, and finite numbers stay finite.

    >>> rounded(torch.tensor([1.0, 1.0009765625, -0.3330078125], dtype=torch.float16)).tolist()
    [1.0, 1.0, -0.3330078125]
    """
    step = 1 << dropped_bits
    bits = weights.contiguous().view(torch.int16).int() & 0xFFFF
    size = (bits & 0x7FFF) + step // 2 - 1 + ((bits >> dropped_bits) & 1)
    size = (size & -step).clamp(max=MAX_FP16 & -step) | (bits & 0x8000)
    return torch.where(size >= 0x8000, size - 0x10000, size).short().view(torch.float16)


def replace(part: Path, target: Path) -> None:
    """Replace a folder by another."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


if __name__ == "__main__":
    typer.run(main)
