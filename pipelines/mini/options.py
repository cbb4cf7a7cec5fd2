"""Command line options that the stages share."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.mini.stage_params import require_outside_package

ParamsFile = Annotated[Path, typer.Option("--params", help="YAML file with one section per stage.")]
WorldFolder = Annotated[Path, typer.Option("--world", help="Folder with cutouts.parquet and scenes.parquet.")]
ClipFolder = Annotated[Path, typer.Option("--clip", help="Folder of the trained CLIP.")]
TowerFolder = Annotated[Path, typer.Option("--tower", help="Folder of the trained vision tower.")]
FeaturesFile = Annotated[Path, typer.Option("--features", help="File that teacher_features.py wrote.")]
OutFolder = Annotated[
    Path, typer.Option("--out", callback=require_outside_package, help="Folder for the weights and metrics.json.")
]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
MeasureOnly = Annotated[
    Path | None, typer.Option("--measure", help="Print the metrics of the weights in this folder; train nothing.")
]
