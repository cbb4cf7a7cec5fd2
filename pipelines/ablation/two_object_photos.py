"""Training photos of which some show two objects, for the cell that is trained on them.

Example:  python -m pipelines.ablation.two_object_photos --photos 2400 --share 0.5 --out out/ablation/two-object-photos
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.ablation.cell import write
from pipelines.ablation.cells import PARAMS, merged, tree
from stages.world import world


def main(
    photos: Annotated[int, typer.Option("--photos", min=1, help="Number of photos.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for raw, objects.parquet and captions.parquet.")],
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="Share of them that show two objects.")],
    reference: Annotated[Path, typer.Option("--reference", help="Params of the reference cell.")] = PARAMS,
) -> None:
    """Render the photos, with their ground truth."""
    write(merged(tree(reference), {"world.two_objects": share}), out / "params.yaml")
    world(out / "raw", photos=photos, split="train", truth=out, params=out / "params.yaml")


if __name__ == "__main__":
    typer.run(main)
