"""Put what the chain has made where the package and its pipelines read it, in half precision and in small files.

Weights in the package keep 8 of fp16's 10 mantissa bits: an error of at most 0.2 % each, which changes no figure, and
the wheel, whose compression finds the zeros, is a tenth smaller.

Example:  python pipelines/mini/ship.py
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
from schooling import HERE, WEIGHTS
from torch import Tensor

from taming_core.errors import TamingError
from taming_core.fingerprints import folder_fingerprint
from taming_core.images.families import TamingPipeline

AS_THEY_ARE = ("world", "clip", "detector", "segmenter", "captioner", "matcher", "judge", "strict_judge")
LARGEST = 20_000_000  # bytes of one file in the repository
SHARD = "15MB"
DROPPED = 2  # mantissa bits
LARGEST_NUMBER = 0x7BFF  # the bits of the largest finite fp16 number


def main(
    made: Annotated[Path, typer.Option(help="Folder of all that was made.")] = Path("out/mini"),
    weights: Annotated[Path, typer.Option(help="Folder of the package's models.")] = WEIGHTS,
    base: Annotated[Path, typer.Option(help="Folder of the text-to-image model before it was tamed.")] = HERE / "base",
    out: Annotated[Path, typer.Option(help="What was shipped, by fingerprint.")] = Path("out/mini/shipped.json"),
) -> None:
    """Replace the shipped models; all of them, or none where one is missing."""
    missing = [name for name in (*AS_THEY_ARE, "autoencoder", "encoder", "base") if not (made / name).is_dir()]
    if missing:
        raise TamingError(f"{made} has no {missing[0]}. Run `dvc repro pipelines/mini/dvc.yaml` first.")
    parts = made / "shipping"
    shutil.rmtree(parts, ignore_errors=True)
    for name in (*AS_THEY_ARE, "base"):
        shutil.copytree(made / name, parts / name)
    shutil.copyfile(made / "autoencoder" / "metrics.json", parts / "base" / "vae" / "metrics.json")
    pipeline = TamingPipeline.from_pretrained(made / "encoder", torch_dtype=torch.float16)
    pipeline.save_pretrained(parts / "encoder", max_shard_size=SHARD)
    require_small(parts)
    for name in (*AS_THEY_ARE, "encoder"):
        round_files(parts / name)
        replace(parts / name, weights / name)
    replace(parts / "base", base)
    shipped = {name: folder_fingerprint(weights / name) for name in (*AS_THEY_ARE, "encoder")}
    out.write_text(json.dumps({**shipped, "base": folder_fingerprint(base)}, indent=2) + "\n")


def require_small(folder: Path) -> None:
    """Raises TamingError if a file is too large for the repository."""
    large = [f for f in sorted(folder.rglob("*")) if f.stat().st_size > LARGEST]
    if large:
        raise TamingError(f"{large[0]} has more than {LARGEST // 10**6} MB. Save it in shards, or make it smaller.")


def round_files(folder: Path) -> None:
    """Round the half-precision weights of every safetensors file below a folder."""
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        kept = {name: rounded(t) if t.dtype == torch.float16 else t for name, t in load_file(file).items()}
        save_file(kept, file, metadata)


def rounded(weights: Float16[Tensor, "*shape"]) -> Float16[Tensor, "*shape"]:
    """The nearest numbers whose lowest mantissa bits are 0; ties go to the even one, and nothing becomes infinite.

    >>> rounded(torch.tensor([1.0, 1.0009765625, -0.3330078125], dtype=torch.float16)).tolist()
    [1.0, 1.0, -0.3330078125]
    """
    step = 1 << DROPPED
    bits = weights.contiguous().view(torch.int16).int() & 0xFFFF
    size = (bits & 0x7FFF) + step // 2 - 1 + ((bits >> DROPPED) & 1)
    size = (size & -step).clamp(max=LARGEST_NUMBER & -step) | (bits & 0x8000)
    return torch.where(size >= 0x8000, size - 0x10000, size).short().view(torch.float16)


def replace(part: Path, target: Path) -> None:
    """Move a folder into the place of another."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


if __name__ == "__main__":
    typer.run(main)
