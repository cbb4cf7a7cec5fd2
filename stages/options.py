"""The options that several commands share, and where files lie when nobody says otherwise."""

from pathlib import Path
from typing import Annotated

import typer

RAW = Path("data/raw")
OBJECTS = Path("data/objects.parquet")
CAPTIONS = Path("data/captions.parquet")
ROWS = Path("data/rows")
ENCODER = Path("data/encoder")
EVALUATION = Path("data/evaluation")

ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", help="Every tunable number. Default: params.yaml here, else the one of the package."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps; changes speed, not results' meaning.")]
Precision = Annotated[
    str, typer.Option("--precision", help="Of weights and arithmetic: fp32, bf16 or fp16, which halve the memory.")
]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="Parts wait in the CPU's memory until they are needed; slower, for a small GPU."),
]
RawFolder = Annotated[
    Path, typer.Option("--in", help="Folder of photos; sub-folders may name identities.", show_default=True)
]
