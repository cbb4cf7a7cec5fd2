"""Write the params files of one training, for itself and for its evaluations, and link the rows that it trains on.

Example:  python -m pipelines.ablation.cell --cell gated --seed 0 --out out/ablation/cells/gated/0
"""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from pipelines.ablation.cells import CELLS, OUT, PARAMS, Tree, load, merged, tree
from taming_core.params.load import load_params


def main(
    cell: Annotated[str, typer.Option("--cell", help="Name in cells.yaml.")],
    seed: Annotated[int, typer.Option("--seed", help="Of the training.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for params.yaml and guidance-SCALE.yaml.")],
    cells: Annotated[Path, typer.Option("--cells", help="File with the overrides of each cell.")] = CELLS,
    reference: Annotated[Path, typer.Option("--reference", help="Params of the reference cell.")] = PARAMS,
    rows: Annotated[Path, typer.Option("--rows", help="Folder of the folders of rows.")] = OUT,
) -> None:
    """Merge the reference's params with the overrides of the cell, validate the result, and link the rows."""
    ablation = load(cells)
    params = seeded(merged(tree(reference), ablation.cells[cell].overrides), seed)
    write(params, out / "params.yaml")
    for scale in ablation.scales:
        write(guided(params, scale), out / f"guidance-{scale}.yaml")
    link(rows / rows_of(params), out / "rows")
    print(out)


def seeded(params: Tree, seed: int) -> Tree:
    """The params with this seed of the training."""
    return {**params, "train": {**params["train"], "seed": seed}}


def rows_of(params: Tree) -> str:
    """The rows that a cell is trained on: those made for it, those without text-image pairs, or those of all others.

    >>> rows_of({"caption": {"attributes": None}, "train": {"prior": 9, "two_objects": 0.0}})
    'object-rows'
    """
    if params["train"]["two_objects"] > 0:
        return "two-object-rows"
    if params["caption"]["attributes"] is not None:
        return "attribute-rows"
    return "rows" if params["train"]["prior"] is None else "object-rows"


def link(folder: Path, out: Path) -> None:
    """Make `out` a folder of the same files; so a cell is trained again if its own rows change, and no others'."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out, copy_function=os.link)


def guided(params: Tree, scale: float) -> Tree:
    """The params with this guidance scale for the object."""
    evaluate = params["evaluate"]
    return {**params, "evaluate": {**evaluate, "sampling": {**evaluate["sampling"], "guidance_object": scale}}}


def write(params: Tree, out: Path) -> None:
    """Validate and write a params file, under a temporary name first.

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
