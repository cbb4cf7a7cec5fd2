"""Training photos of which some show two objects, for the cell that is trained on them.

Example:  python -m pipelines.ablation.two_object_photos --photos 2400 --out out/ablation/two-object-photos
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.ablation.cell import write
from pipelines.ablation.cells import CELLS, PARAMS, load, merged, tree
from stages.world import world

CELL = "two_objects"


def main(
    photos: Annotated[int, typer.Option("--photos", min=1, help="Number of photos.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for raw, objects.parquet and captions.parquet.")],
    cells: Annotated[Path, typer.Option("--cells", help="File with the overrides of each cell.")] = CELLS,
    reference: Annotated[Path, typer.Option("--reference", help="Params of the reference cell.")] = PARAMS,
) -> None:
    """Render the photos by the params of the cell, with their ground truth."""
    write(merged(tree(reference), load(cells).cells[CELL].overrides), out / "params.yaml")
    world(out / "raw", photos=photos, split="train", truth=out, params=out / "params.yaml")


if __name__ == "__main__":
    typer.run(main)
