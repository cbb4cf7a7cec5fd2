"""Options that several commands share, and the default paths."""

from pathlib import Path
from typing import Annotated

import typer

RAW = Path("data/raw")
OBJECTS = Path("data/objects.parquet")
CAPTIONS = Path("data/captions.parquet")
ROWS = Path("data/rows")
ENCODER = Path("data/encoder")
EVALUATION = Path("data/evaluation")
JUDGES = Path("data/judges")

ParamsFile = Annotated[
    Path | None,
    typer.Option(
        "--params", help="The params file. Default: params.yaml in the working directory, else that of the package."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", help="Of weights and computation: fp32, bf16 or fp16; the latter two halve the memory."
    ),
]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="Keep components in CPU memory until they are needed; slower, for a small GPU."),
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="Folder or hub name of the encoder's base. Default: as the encoder names it."),
]
RawFolder = Annotated[
    Path, typer.Option("--in", help="Folder of photos; sub-folders may name identities.", show_default=True)
]
