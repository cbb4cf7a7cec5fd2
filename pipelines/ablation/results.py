"""From what the cells left to numbers: each measure of each cell, and its difference to the reference's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.ablation.cells import OURS, Ablation
from taming_core.errors import TamingError
from taming_core.evaluation import protocol
from taming_core.evaluation.statistics import Estimate, estimate
from taming_core.training.metrics_log import METRICS, SPEED

SEED = 0  # of the intervals
Sample = tuple[str, str]  # the subject, and what tells its samples apart: the same in all cells
Values = dict[str, dict[Sample, float]]  # measure -> its values


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    key: str
    title: str
    meaning: str
    better: Literal["higher", "lower"]
    percent: bool = False
    digits: int = 2  # of a number, or of a percentage

    def said(self, value: float) -> str:
        """The number as a person reads it.

        >>> Measure("judge_top1", "Recognised", "", "higher", True, 0).said(0.31)
        '31 %'
        """
        return self._number(value, "") + (" %" if self.percent else "")

    def said_difference(self, value: float) -> str:
        """A difference; that of percentages in percentage points.

        >>> Measure("judge_top1", "Recognised", "", "higher", True, 0).said_difference(-0.031)
        '−3 pp'
        """
        return self._number(value, "+") + (" pp" if self.percent else "")

    def _number(self, value: float, sign: str) -> str:
        return f"{100 * value if self.percent else value:{sign}.{self.digits}f}".replace("-", "−")


# fmt: off
DRAWN = (
    Measure("judge_cosine", "Likeness", "cosine of the judge's features of image and subject", "higher"),
    Measure("judge_top1", "Recognised", "the judge finds the right thing among all held-out ones", "higher", True, 0),
    Measure("strict_pass", "Accepted", "the strict judge takes the cut-out object for the subject", "higher", True, 0),
    Measure("shape", "Shape", "agreement of silhouette and edges after the best alignment", "higher"),
    Measure("scene_accuracy", "Right scene", "the text judge picks the scene asked for among all", "higher", True, 0),
    Measure("style_accuracy", "Right style", "the same of the style", "higher", True, 0),
    Measure("diversity", "Diversity", "mean distance between the images of one thing", "higher"),
)
UNDRAWN = (
    Measure("against_none", "Use, against nothing", "by how much the object's tokens, taken from another view, lower "
            "the denoising error inside the object, against no tokens", "higher", True, 1),
    Measure("against_another", "Use, against another's", "the same, against the tokens of another object", "higher",
            True, 1),
    Measure("plain_change", "Plain error", "change of the error of plain text-to-image against the base model", "lower",
            True, 1),
)
# fmt: on


@dataclass(frozen=True)
class Entry:
    """One measure of one cell."""

    cell: str
    scale: float | None  # guidance towards the object; None where nothing was drawn
    measure: Measure
    found: Estimate
    difference: Estimate | None  # to the reference's, paired by subject; None for itself, and where pairs are unknown

    @property
    def sure(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


def entries(told: Ablation, made: Path) -> list[Entry]:
    """All measures of all cells, at every guidance."""
    found = [e for scale in told.scales for e in _drawn(told, made, scale)]
    values = {cell: undrawn(made / "measures" / f"{cell}.json") for cell in told.run}
    return [*found, *(e for cell in told.run for e in compared(cell, None, UNDRAWN, values[cell], values[OURS]))]


def _drawn(told: Ablation, made: Path, scale: float) -> list[Entry]:
    """Of one guidance."""
    folders = {cell: evaluated(made, cell, scale) for cell in told.run}
    values = {cell: drawn(folder) for cell, folder in folders.items()}
    return [
        e
        for cell in told.run
        for e in [*compared(cell, scale, DRAWN, values[cell], values[OURS]), *diversity(cell, scale, folders[cell])]
    ]


def evaluated(made: Path, cell: str, scale: float) -> Path:
    """Where `taming eval` wrote."""
    return made / "evaluations" / cell / str(scale)


def verdicts(folder: Path) -> list[dict[str, Any]]:
    """What was said of each image that was drawn with the thing's own tokens."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["condition"] == protocol.OURS]


def drawn(folder: Path) -> Values:
    """Every measure of an evaluation by image."""
    rows = verdicts(folder)
    found = {m.key: {(r["identity"], r["image"]): float(r[m.key]) for r in rows if m.key in r} for m in DRAWN}
    return {key: values for key, values in found.items() if values}


def undrawn(file: Path) -> Values:
    """Every measure that `score.py` wrote by row."""
    rows = [row for kind in json.loads(file.read_text(encoding="utf-8")).values() for row in kind]
    return {m.key: {(r["subject"], r["row"]): float(r[m.key]) for r in rows if m.key in r} for m in UNDRAWN}


def compared(cell: str, scale: float | None, measures: Sequence[Measure], values: Values, ours: Values) -> list[Entry]:
    """The measures that a cell has, beside the reference's."""
    return [
        Entry(cell, scale, m, mean(values[m.key]), None if cell == OURS else difference(values[m.key], ours[m.key]))
        for m in measures
        if m.key in values
    ]


def diversity(cell: str, scale: float, folder: Path) -> list[Entry]:
    """As the evaluation tells it: it is of all images of a thing at once, so there is nothing to pair."""
    means, ends = (json.loads((folder / f"{n}.json").read_text())[protocol.OURS] for n in ("metrics", "intervals"))
    measure = next(m for m in DRAWN if m.key == "diversity")
    if measure.key not in means:  # there is one image of each thing
        return []
    return [Entry(cell, scale, measure, Estimate(means[measure.key], **ends[measure.key]), None)]


def mean(values: Mapping[Sample, float]) -> Estimate:
    """The mean, and its interval over subjects."""
    return estimate(list(values.values()), [subject for subject, _ in values], SEED)


def difference(values: Mapping[Sample, float], ours: Mapping[Sample, float]) -> Estimate:
    """Of the same samples, less the reference's, with its interval over subjects.

    Raises:
        TamingError: the samples are others.
    """
    if values.keys() != ours.keys():
        raise TamingError("Two cells were measured on other things, prompts or seeds. Run the stages evaluate and "
                          "score of all cells again.")  # fmt: skip
    return mean({sample: value - ours[sample] for sample, value in values.items()})


@dataclass(frozen=True)
class Cost:
    """What a training took."""

    trained: int  # parameters
    seconds: float | None  # None where the record of the run is gone


def cost(encoder: Path, runs: Path) -> Cost:
    """Of the encoder in a folder; the seconds lie with the run, for they differ from time to time."""
    told = json.loads((encoder / "training.json").read_text(encoding="utf-8"))
    log = runs / told["run"] / METRICS
    return Cost(sum(told["trained"].values()), seconds(log, told["params"]["batch_size"]) if log.is_file() else None)


def seconds(log: Path, batch_size: int) -> float:
    """Of all steps."""
    return sum(batch_size / json.loads(line)[SPEED] for line in log.read_text(encoding="utf-8").splitlines())
