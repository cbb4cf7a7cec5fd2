"""The content of cells.yaml, and the params of each cell."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from ruamel.yaml import YAML

from taming_core.errors import TamingError
from taming_core.params.sections import Section

HERE = Path(__file__).parent
CELLS = HERE / "cells.yaml"
PARAMS = HERE / "params.yaml"
OURS = "ours"  # the reference cell
OUT = Path("out/ablation")

Family = Literal["ours", "design", "tokens", "regularizer", "tuning", "captions"]
Tree = dict[str, Any]


class Cell(Section):
    """One design choice."""

    title: str
    family: Family
    why: str  # what changes
    overrides: Tree  # dotted keys of the reference's params


class Photos(Section):
    """Numbers of rendered photos."""

    train: PositiveInt
    regularization: PositiveInt
    unseen: PositiveInt
    unseen_general: PositiveInt


class ScoreParams(Section):
    """The measurements of the denoising error."""

    seed: NonNegativeInt
    timesteps: list[NonNegativeInt] = Field(min_length=1)
    rows: PositiveInt  # of held-out objects
    pairs: PositiveInt  # held-out text-image pairs
    batch_size: PositiveInt  # changes speed only


class SheetParams(Section):
    """Images of each cell on the sheet."""

    objects: PositiveInt
    prompts: PositiveInt  # per object


class Ablation(Section):
    """All of cells.yaml."""

    run: list[str]  # names of the cells that are trained, in the order of the table
    seeds: list[NonNegativeInt] = Field(min_length=1)  # of the trainings of every cell
    scales: list[PositiveFloat] = Field(min_length=1)
    two_objects: float = Field(ge=0, le=1)  # share of the photos that show two objects, for the cell with such photos
    photos: Photos
    score: ScoreParams
    sheet: SheetParams
    cells: dict[str, Cell]

    @model_validator(mode="after")
    def _cells_are_known(self) -> "Ablation":
        if unknown := [name for name in self.run if name not in self.cells]:
            raise ValueError(f"run names {unknown}, which cells lacks")
        if OURS not in self.run:
            raise ValueError(f"run must hold {OURS}, which all others are compared with")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must not list a seed twice")
        return self


def load(path: Path = CELLS) -> Ablation:
    """Read and validate cells.yaml; raises pydantic's error, which names the key."""
    return Ablation.model_validate(tree(path))


def tree(path: Path) -> Tree:
    """The content of a YAML file."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def merged(reference: Tree, overrides: Tree) -> Tree:
    """The reference's params with overrides by dotted key.

    >>> merged({"train": {"steps": 9, "seed": 0}}, {"train.steps": 2})
    {'train': {'steps': 2, 'seed': 0}}

    Raises:
        TamingError: the reference has no such key, or has this value already.
    """
    params = reference
    for key, value in overrides.items():
        params = _with(params, key.split("."), value, key)
    return params


def _with(branch: Any, path: list[str], value: Any, key: str) -> Tree:
    """A copy of the branch with the value at the end of the path."""
    first, *rest = path
    if not isinstance(branch, dict) or first not in branch:
        raise TamingError(f"An override names {key}, which the reference's params lack. Correct it in cells.yaml.")
    if not rest and branch[first] == value:
        raise TamingError(f"An override sets {key} to {value}, as the reference has it. Remove it from cells.yaml.")
    return {**branch, first: _with(branch[first], rest, value, key) if rest else value}
