"""Metrics of every cell with intervals, and their differences to the reference's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.ablation.cells import OURS, Ablation
from taming_core.errors import TamingError
from taming_core.evaluation import protocol
from taming_core.evaluation.intervals import Estimate, estimate_mean
from taming_core.training.metrics_log import METRICS, SPEED

SEED = 0  # of the intervals
Sample = tuple[str, str]  # subject, and an id of the sample that is the same in all cells
Values = dict[str, dict[Sample, float]]  # metric -> its values


@dataclass(frozen=True)
class Measure:
    """A metric: a column of the table."""

    key: str
    title: str
    meaning: str
    better: Literal["higher", "lower"]
    percent: bool = False
    digits: int = 2  # of a number, or of a percentage

    def formatted(self, value: float) -> str:
        """The number as text.

        >>> Measure("judge_top1", "Recognised", "", "higher", True, 0).formatted(0.31)
        '31 %'
        """
        return self._number(value, "") + (" %" if self.percent else "")

    def formatted_difference(self, value: float) -> str:
        """A difference as text; of percentages in percentage points.

        >>> Measure("judge_top1", "Recognised", "", "higher", True, 0).formatted_difference(-0.031)
        '−3 pp'
        """
        return self._number(value, "+") + (" pp" if self.percent else "")

    def _number(self, value: float, sign: str) -> str:
        return f"{100 * value if self.percent else value:{sign}.{self.digits}f}".replace("-", "−")


# fmt: off
IMAGES = (
    Measure("judge_cosine", "Likeness", "cosine of the judge's features of image and subject", "higher"),
    Measure("judge_top1", "Recognised", "the judge picks the right object among all held-out ones", "higher", True, 0),
    Measure("strict_pass", "Accepted", "the strict judge accepts the cut-out object as the subject", "higher", True, 0),
    Measure("shape", "Shape", "agreement of silhouette and edges after the best alignment", "higher"),
    Measure("scene_accuracy", "Right scene", "the text judge picks the prompt's scene among all", "higher", True, 0),
    Measure("style_accuracy", "Right style", "the same for the style", "higher", True, 0),
    Measure("diversity", "Diversity", "mean distance between the images of one object", "higher"),
)
DENOISING = (
    Measure("against_none", "Use, against nothing", "relative reduction of the denoising error inside the object by "
            "its tokens, from another view, compared with no tokens", "higher", True, 1),
    Measure("against_another", "Use, against another's", "the same, compared with the tokens of another object",
            "higher", True, 1),
    Measure("plain_change", "Plain error", "relative change of the denoising error without an object, to the base "
            "model", "lower", True, 1),
)
# fmt: on


@dataclass(frozen=True)
class Entry:
    """One metric of one cell."""

    cell: str
    scale: float | None  # guidance scale for the object; None for the denoising error
    measure: Measure
    value: Estimate
    difference: Estimate | None  # to the reference's, paired by sample; None for the reference and for diversity

    @property
    def significant(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


def entries(ablation: Ablation, out: Path) -> list[Entry]:
    """All metrics of all cells at every guidance scale."""
    drawn = [e for scale in ablation.scales for e in _image_entries(ablation, out, scale)]
    values = {cell: denoising_values(out / "measures" / f"{cell}.json") for cell in ablation.run}
    errors = (compared(cell, None, DENOISING, values[cell], values[OURS]) for cell in ablation.run)
    return [*drawn, *(e for entries_of_cell in errors for e in entries_of_cell)]


def _image_entries(ablation: Ablation, out: Path, scale: float) -> list[Entry]:
    """The image metrics of all cells at one guidance scale."""
    folders = {cell: evaluation_folder(out, cell, scale) for cell in ablation.run}
    values = {cell: image_values(folder) for cell, folder in folders.items()}
    return [
        e
        for cell in ablation.run
        for e in [*compared(cell, scale, IMAGES, values[cell], values[OURS]), *diversity(cell, scale, folders[cell])]
    ]


def evaluation_folder(out: Path, cell: str, scale: float) -> Path:
    """The folder that `taming eval` wrote."""
    return out / "evaluations" / cell / str(scale)


def image_scores(folder: Path) -> list[dict[str, Any]]:
    """The scores of the images that were drawn with the object's own tokens."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["condition"] == protocol.OURS]


def image_values(folder: Path) -> Values:
    """Every metric of an evaluation by image."""
    rows = image_scores(folder)
    metrics = {m.key: {(r["identity"], r["image"]): float(r[m.key]) for r in rows if m.key in r} for m in IMAGES}
    return {key: values for key, values in metrics.items() if values}


def denoising_values(file: Path) -> Values:
    """Every metric that `score.py` wrote, by row."""
    rows = [row for kind in json.loads(file.read_text(encoding="utf-8")).values() for row in kind]
    return {m.key: {(r["subject"], r["row"]): float(r[m.key]) for r in rows if m.key in r} for m in DENOISING}


def compared(cell: str, scale: float | None, measures: Sequence[Measure], values: Values, ours: Values) -> list[Entry]:
    """The metrics of a cell with their differences to the reference's."""
    return [
        Entry(cell, scale, m, mean(values[m.key]), None if cell == OURS else difference(values[m.key], ours[m.key]))
        for m in measures
        if m.key in values
    ]


def diversity(cell: str, scale: float, folder: Path) -> list[Entry]:
    """The evaluation's diversity; it is one number for all images of an object, so differences are not paired."""
    means, ends = (json.loads((folder / f"{n}.json").read_text())[protocol.OURS] for n in ("metrics", "intervals"))
    measure = next(m for m in IMAGES if m.key == "diversity")
    if measure.key not in means:  # one image per object
        return []
    return [Entry(cell, scale, measure, Estimate(means[measure.key], **ends[measure.key]), None)]


def mean(values: Mapping[Sample, float]) -> Estimate:
    """The mean, and its interval over subjects."""
    return estimate(list(values.values()), [subject for subject, _ in values], SEED)


def difference(values: Mapping[Sample, float], ours: Mapping[Sample, float]) -> Estimate:
    """The mean difference to the reference on the same samples, with its interval over subjects.

    Raises:
        TamingError: the samples differ.
    """
    if values.keys() != ours.keys():
        raise TamingError("Two cells were measured on different objects, prompts or seeds. Run the stages evaluate and "
                          "score of all cells again.")  # fmt: skip
    return mean({sample: value - ours[sample] for sample, value in values.items()})


@dataclass(frozen=True)
class Cost:
    """Size and time of a training."""

    trained: int  # parameters
    seconds: float | None  # None if the log of the run was deleted


def cost(encoder: Path, runs: Path) -> Cost:
    """The cost of an encoder's training; the seconds are in the log of its run."""
    record = json.loads((encoder / "training.json").read_text(encoding="utf-8"))
    log = runs / record["run"] / METRICS
    return Cost(
        sum(record["trained"].values()), seconds(log, record["params"]["batch_size"]) if log.is_file() else None
    )


def seconds(log: Path, batch_size: int) -> float:
    """Seconds of all steps."""
    return sum(batch_size / json.loads(line)[SPEED] for line in log.read_text(encoding="utf-8").splitlines())
