"""The model card of `mini`, generated from the weights, the artwork's tables and every stage's metrics.json.

Example:  python pipelines/mini/card.py
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jinja2
import pyarrow.parquet as pq
import typer
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from safetensors import safe_open
from schooling import WEIGHTS, Section, write_metrics

HERE = Path(__file__).parent
BASE = HERE / "base"


class Model(Section):
    """How one model came to be what it is; the rest of the card is measured."""

    role: str
    folders: list[str]  # below the weights, or "base" for the text-to-image model before it was tamed
    kind: str  # its class in the library it comes from
    trained: str  # steps, batch and where


class Target(Section):
    """A figure and what it should reach."""

    said: str
    folder: str
    key: str
    aim: float | None
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True)
class Figure:
    """A measured number as the card shows it."""

    said: str
    value: str
    aim: str
    reached: bool | None  # None where nothing is aimed at


def main(
    facts: Annotated[Path, typer.Option(help="What was trained how, and what figures should reach.")] = HERE
    / "card.yaml",
    weights: Annotated[Path, typer.Option(help="Folder of all models of mini.")] = WEIGHTS,
    base: Annotated[Path, typer.Option(help="Folder of the text-to-image model before it was tamed.")] = BASE,
    evaluation: Annotated[
        Path | None, typer.Option(help="What `taming eval` measured of the encoder, to be kept beside it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The card.")] = WEIGHTS / "README.md",
) -> None:
    """Write the card."""
    if evaluation:
        write_metrics(weights / "encoder", evaluated(evaluation))
    out.write_text(card(facts, weights, base), encoding="utf-8")
    print(out)


def card(facts: Path, weights: Path, base: Path) -> str:
    """The card as Markdown."""
    told: Any = YAML(typ="safe", pure=True).load(facts.read_text(encoding="utf-8"))
    models = TypeAdapter(list[Model]).validate_python(told["models"])
    targets = TypeAdapter(list[Target]).validate_python(told["figures"])
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((HERE / "card.md").read_text(encoding="utf-8")).render(
        models=[(m, *size([_folder(name, weights, base) for name in m.folders])) for m in models],
        figures=[figure(t, metrics(_folder(t.folder, weights, base))) for t in targets],
        cannot=told["cannot"],
        artwork=counted(weights / "world" / "cutouts.parquet", ("design", "source", "licence")),
        splits=Counter(pq.read_table(weights / "world" / "cutouts.parquet", columns=["split"])["split"].to_pylist()),
        scenes=counted(weights / "world" / "scenes.parquet", ("kind", "licence")),
        total=sum(f.stat().st_size for f in weights.rglob("*") if f.is_file()) / 1e6,
    )


def _folder(name: str, weights: Path, base: Path) -> Path:
    return base.parent / name if name.startswith("base") else weights / name


def evaluated(folder: Path) -> dict[str, float]:
    """Every measure of an evaluation with its interval, under `condition/measure`."""
    means, ends = (json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "intervals"))
    found: dict[str, float] = {}
    for condition, measures in means.items():
        for key, value in measures.items():
            low_high = ends[condition][key]
            found |= {f"{condition}/{key}": value, f"{condition}/{key}_low": low_high["low"],
                      f"{condition}/{key}_high": low_high["high"]}  # fmt: skip
    return found


def metrics(folder: Path) -> dict[str, float]:
    """What a stage measured; nothing where it has not been run."""
    file = folder / "metrics.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def figure(t: Target, found: dict[str, float]) -> Figure:
    """A figure with its interval, where it has one.

    >>> figure(Target(said="IoU", folder="", key="iou", aim=0.9), {"iou": 0.93, "iou_low": 0.92, "iou_high": 0.94})
    Figure(said='IoU', value='.930 (.920 to .940)', aim='>= .90', reached=True)
    """
    value = found.get(t.key)
    aim = "" if t.aim is None else f"{'>=' if t.better == 'higher' else '<='} {_short(t.aim, 2)}"
    if value is None:
        return Figure(t.said, "not measured", aim, None if t.aim is None else False)
    ends = [found.get(f"{t.key}_{end}") for end in ("low", "high")]
    interval = "" if None in ends else f" ({_short(ends[0])} to {_short(ends[1])})"
    reached = None if t.aim is None else (value >= t.aim) == (t.better == "higher") or value == t.aim
    return Figure(t.said, _short(value) + interval, aim, reached)


def _short(value: float | None, digits: int = 3) -> str:
    """A share without its leading zero; a number above 10, such as decibels, with one digit."""
    assert value is not None
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.{digits}f}".replace("0.", ".", 1)


def size(folders: Iterable[Path]) -> tuple[float, float]:
    """Millions of parameters, and megabytes of the safetensors files."""
    files = [f for folder in folders for f in sorted(folder.rglob("*.safetensors"))]
    return sum(map(_numbers, files)) / 1e6, sum(f.stat().st_size for f in files) / 1e6


def _numbers(file: Path) -> int:
    with safe_open(file, "np") as opened:
        shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118  (not a dict)
    total = 0
    for shape in shapes:
        count = 1
        for side in shape:
            count *= side
        total += count
    return total


def counted(table: Path, columns: Sequence[str]) -> list[tuple[tuple[str, ...], int]]:
    """Each combination of some columns with how many rows have it, in the order of first appearance."""
    rows = pq.read_table(table, columns=list(columns)).to_pylist()
    return list(Counter(tuple(r[c] for c in columns) for r in rows).items())


if __name__ == "__main__":
    typer.run(main)
