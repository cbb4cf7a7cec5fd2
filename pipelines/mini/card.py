"""The model card of `mini`, generated from the weights, the artwork's tables and every stage's metrics.json.

Example:  python -m pipelines.mini.card           # writes out/mini/README.md
          python -m pipelines.mini.card --ship    # writes taming_core/mini/README.md
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jinja2
import pyarrow.parquet as pq
import typer
from pydantic import TypeAdapter
from ruamel.yaml import YAML
from safetensors import safe_open

from pipelines.mini.metrics import write_metrics
from pipelines.mini.stage_params import HERE, OUT, Section, require_outside_package
from taming_core.files import read_json
from taming_core.weights.mini import BASE, MINI

CARD = "README.md"


class Model(Section):
    """How one model was trained; the rest of the card is measured."""

    role: str
    folders: list[str]  # below the weights, or "base" for the base model
    kind: str  # class in its library
    trained: str  # steps, batch and where


class Target(Section):
    """A metric on the card and its target."""

    label: str
    folder: str
    key: str
    aim: float | None
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True)
class Figure:
    """A metric as text."""

    label: str
    value: str
    aim: str
    reached: bool | None  # None without a target


def main(
    facts: Annotated[Path, typer.Option(help="How the models were trained, and targets.")] = HERE / "card.yaml",
    weights: Annotated[Path, typer.Option(help="Folder of all models of mini.")] = MINI,
    base: Annotated[Path, typer.Option(help="Folder of the base model.")] = BASE,
    evaluation: Annotated[Path | None, typer.Option(help="Folder that `taming eval` wrote for the encoder.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the card.")] = OUT,
    ship: Annotated[bool, typer.Option("--ship", help="Write card and evaluation metrics to --weights.")] = False,
) -> None:
    """Write the model card."""
    target = weights if ship else require_outside_package(out)
    measured = {"encoder": evaluated(evaluation)} if evaluation else {}
    if ship:
        for folder, values in measured.items():
            write_metrics(weights / folder, values)
        measured = {}
    target.mkdir(parents=True, exist_ok=True)
    (target / CARD).write_text(card(facts, weights, base, measured), encoding="utf-8")
    print(target / CARD)


def card(facts: Path, weights: Path, base: Path, measured: Mapping[str, dict[str, float]] | None = None) -> str:
    """The card as Markdown; `measured` holds metrics by folder that replace its metrics.json."""
    content: Any = YAML(typ="safe", pure=True).load(facts.read_text(encoding="utf-8"))
    models = TypeAdapter(list[Model]).validate_python(content["models"])
    targets = TypeAdapter(list[Target]).validate_python(content["figures"])
    known = {t.folder: metrics(_folder(t.folder, weights, base)) for t in targets} | dict(measured or {})
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((HERE / "card.md").read_text(encoding="utf-8")).render(
        models=[(m, *size([_folder(name, weights, base) for name in m.folders])) for m in models],
        figures=[figure(t, known[t.folder]) for t in targets],
        cannot=content["cannot"],
        artwork=counted(weights / "world" / "cutouts.parquet", ("design", "source", "licence")),
        splits=Counter(pq.read_table(weights / "world" / "cutouts.parquet", columns=["split"])["split"].to_pylist()),
        scenes=counted(weights / "world" / "scenes.parquet", ("kind", "licence")),
        total=sum(f.stat().st_size for f in weights.rglob("*") if f.is_file()) / 1e6,
    )


def _folder(name: str, weights: Path, base: Path) -> Path:
    return base.parent / name if name.startswith("base") else weights / name


def evaluated(folder: Path) -> dict[str, float]:
    """Every metric of an evaluation with its interval, as `condition/metric`."""
    means, ends = (read_json(folder / f"{name}.json") for name in ("metrics", "intervals"))
    found: dict[str, float] = {}
    for condition, measures in means.items():
        for key, value in measures.items():
            low_high = ends[condition][key]
            found |= {f"{condition}/{key}": value, f"{condition}/{key}_low": low_high["low"],
                      f"{condition}/{key}_high": low_high["high"]}  # fmt: skip
    return found


def metrics(folder: Path) -> dict[str, float]:
    """The metrics.json of a folder; empty if there is none."""
    file = folder / "metrics.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def figure(t: Target, values: dict[str, float]) -> Figure:
    """A metric as text, with its interval if there is one.

    >>> figure(Target(label="IoU", folder="", key="iou", aim=0.9), {"iou": 0.93, "iou_low": 0.92, "iou_high": 0.94})
    Figure(label='IoU', value='.930 (.920 to .940)', aim='>= .90', reached=True)
    """
    value = values.get(t.key)
    aim = "" if t.aim is None else f"{'>=' if t.better == 'higher' else '<='} {_short(t.aim, 2)}"
    if value is None:
        return Figure(t.label, "not measured", aim, None if t.aim is None else False)
    ends = [values.get(f"{t.key}_{end}") for end in ("low", "high")]
    interval = "" if None in ends else f" ({_short(ends[0])} to {_short(ends[1])})"
    reached = None if t.aim is None else (value >= t.aim) == (t.better == "higher") or value == t.aim
    return Figure(t.label, _short(value) + interval, aim, reached)


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
    """The number of rows of each combination of columns, in order of first appearance."""
    rows = pq.read_table(table, columns=list(columns)).to_pylist()
    return list(Counter(tuple(r[c] for c in columns) for r in rows).items())


if __name__ == "__main__":
    typer.run(main)
