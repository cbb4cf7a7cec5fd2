"""What the ablation trains: the numbers of cells.yaml, and each cell's params."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from ruamel.yaml import YAML

from taming_core.errors import TamingError
from taming_core.params.sections import Section

HERE = Path(__file__).parent
CELLS = HERE / "cells.yaml"
PARAMS = HERE / "params.yaml"
OURS = "ours"  # the cell that all others are compared with
MADE = Path("out/ablation")

Family = Literal["ours", "design", "tokens", "regularizer", "tuning", "captions"]
Tree = dict[str, Any]


class Cell(Section):
    """One design choice."""

    title: str
    family: Family
    why: str  # what it asks
    overrides: Tree  # keys of the reference's params, with dots


class Photos(Section):
    """How many are rendered."""

    train: PositiveInt
    general: PositiveInt
    unseen: PositiveInt
    unseen_general: PositiveInt


class ScoreParams(Section):
    """What is measured without drawing."""

    seed: NonNegativeInt
    timesteps: list[NonNegativeInt] = Field(min_length=1)
    rows: PositiveInt  # of held-out things
    pairs: PositiveInt  # held-out photos with a caption only
    batch_size: PositiveInt  # changes speed alone


class SheetParams(Section):
    """What the sheet shows of each cell."""

    things: PositiveInt
    prompts: PositiveInt  # of each thing


class Ablation(Section):
    """All of cells.yaml."""

    run: list[str]  # which cells are trained, in the order of the table
    scales: list[PositiveFloat] = Field(min_length=1)
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
        return self


def load(path: Path = CELLS) -> Ablation:
    """The checked numbers; raises pydantic's error, which names the key."""
    return Ablation.model_validate(tree(path))


def tree(path: Path) -> Tree:
    """A YAML file as it stands."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def merged(reference: Tree, overrides: Tree) -> Tree:
    """The reference's params with some values replaced.

    >>> merged({"train": {"steps": 9, "seed": 0}}, {"train.steps": 2})
    {'train': {'steps': 2, 'seed': 0}}

    Raises:
        TamingError: the reference has no such key, or the very value already.
    """
    found = reference
    for key, value in overrides.items():
        found = _with(found, key.split("."), value, key)
    return found


def _with(branch: Tree, path: list[str], value: Any, key: str) -> Tree:
    """The branch with the value at the end of the path; the branch that is given stays as it is."""
    first, *rest = path
    if not isinstance(branch, dict) or first not in branch:
        raise TamingError(f"An override names {key}, which the reference's params lack. Correct it in cells.yaml.")
    if not rest and branch[first] == value:
        raise TamingError(f"An override sets {key} to {value}, as the reference has it. Remove it from cells.yaml.")
    return {**branch, first: _with(branch[first], rest, value, key) if rest else value}
