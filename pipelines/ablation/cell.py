"""Write the params of one cell: for its training, and for drawing with each guidance towards the object.

Example:  python -m pipelines.ablation.cell --cell gated --out out/ablation/cells/gated
"""

from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from pipelines.ablation.cells import CELLS, PARAMS, Tree, load, merged, tree
from taming_core.params.load import load_params


def main(
    cell: Annotated[str, typer.Option("--cell", help="Its name in cells.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for params.yaml and guidance-SCALE.yaml.")],
    cells: Annotated[Path, typer.Option("--cells", help="What each cell overrides.")] = CELLS,
    reference: Annotated[Path, typer.Option("--reference", help="The params of the reference cell.")] = PARAMS,
) -> None:
    """Merge the reference's params with what the cell overrides, and check the result."""
    told = load(cells)
    params = merged(tree(reference), told.cells[cell].overrides)
    write(params, out / "params.yaml")
    for scale in told.scales:
        write(guided(params, scale), out / f"guidance-{scale}.yaml")
    print(out)


def guided(params: Tree, scale: float) -> Tree:
    """The params with another guidance towards the object; it may be the one they have."""
    evaluate = params["evaluate"]
    return {**params, "evaluate": {**evaluate, "sampling": {**evaluate["sampling"], "guidance_object": scale}}}


def write(params: Tree, out: Path) -> None:
    """Write a params file, whole and valid or not at all.

    Raises:
        TamingError: the params are not valid together.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(params, file)
    load_params(part)
    part.replace(out)


if __name__ == "__main__":
    typer.run(main)
