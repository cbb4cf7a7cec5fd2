"""Metrics of every cell with intervals, and their differences to the reference's."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.ablation.cells import OURS, Ablation
from taming_core.errors import TamingError
from taming_core.evaluation import conditions
from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share, estimate_share_difference
from taming_core.training.metrics_log import METRICS, SPEED

Sample = tuple[int, str, str]  # seed of the training, subject, and an id of the sample that is the same in all cells
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
    share: bool = False  # of samples, each of which has it or not

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


SHARE = (True, 0, True)  # percent, digits, share
# fmt: off
IMAGES = (
    Measure("judge_cosine", "Likeness", "cosine of the judge's features of image and object", "higher"),
    Measure("judge_top1", "Recognised", "the judge picks the right object among all held-out ones", "higher", *SHARE),
    Measure("strict_pass", "Accepted", "the strict judge accepts the cut-out object as the subject", "higher", *SHARE),
    Measure("shape", "Shape", "agreement of silhouette and edges after the best alignment", "higher"),
    Measure("scene_accuracy", "Right scene", "the text judge picks the prompt's scene among all", "higher", *SHARE),
    Measure("style_accuracy", "Right style", "the same for the style", "higher", *SHARE),
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
    difference: Estimate | None  # to the reference's, paired by sample; None for the reference

    @property
    def significant(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


def entries(ablation: Ablation, out: Path) -> list[Entry]:
    """All metrics of all cells at every guidance scale."""
    drawn = [e for scale in ablation.scales for e in _image_entries(ablation, out, scale)]
    values = {
        cell: joined({s: denoising_values(out / "measures" / cell / f"{s}.json", s) for s in ablation.seeds})
        for cell in ablation.run
    }
    errors = (compared(cell, None, DENOISING, values[cell], values[OURS]) for cell in ablation.run)
    return [*drawn, *(e for entries_of_cell in errors for e in entries_of_cell)]


def _image_entries(ablation: Ablation, out: Path, scale: float) -> list[Entry]:
    """The image metrics of all cells at one guidance scale."""
    values = {
        cell: joined({s: image_values(evaluation_folder(out, cell, s, scale), s) for s in ablation.seeds})
        for cell in ablation.run
    }
    return [e for cell in ablation.run for e in compared(cell, scale, IMAGES, values[cell], values[OURS])]


def evaluation_folder(out: Path, cell: str, seed: int, scale: float) -> Path:
    """The folder that `taming eval` wrote for one training."""
    return out / "evaluations" / cell / str(seed) / str(scale)


def image_scores(folder: Path) -> list[dict[str, Any]]:
    """The scores of the images that were drawn with the object's own tokens."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["condition"] == conditions.OURS]


def image_values(folder: Path, seed: int) -> Values:
    """Every metric of the evaluation of one training by image."""
    rows = image_scores(folder)
    metrics = {m.key: {(seed, r["identity"], r["image"]): float(r[m.key]) for r in rows if m.key in r} for m in IMAGES}
    return {key: values for key, values in metrics.items() if values}


def denoising_values(file: Path, seed: int) -> Values:
    """Every metric that `score.py` wrote for one training, by row."""
    rows = [row for kind in json.loads(file.read_text(encoding="utf-8")).values() for row in kind]
    return {m.key: {(seed, r["subject"], r["row"]): float(r[m.key]) for r in rows if m.key in r} for m in DENOISING}


def joined(trainings: Mapping[int, Values]) -> Values:
    """The values of all trainings of a cell; each is needed in every one."""
    keys = dict.fromkeys(key for values in trainings.values() for key in values)
    return {key: {s: v for values in trainings.values() for s, v in values.get(key, {}).items()} for key in keys}


def compared(cell: str, scale: float | None, measures: Sequence[Measure], values: Values, ours: Values) -> list[Entry]:
    """The metrics of a cell with their differences to the reference's."""
    return [
        Entry(cell, scale, m, mean(own, m), None if cell == OURS else difference(own, ours[m.key], m))
        for m in measures
        if (own := values.get(m.key)) is not None
    ]


def mean(values: Mapping[Sample, float], m: Measure) -> Estimate:
    """The mean, and its interval over subjects and trainings."""
    return (estimate_share if m.share else estimate_mean)(list(values.values()), *factors(values))


def difference(values: Mapping[Sample, float], ours: Mapping[Sample, float], m: Measure) -> Estimate:
    """The mean difference to the reference on the same samples, with its interval over subjects and trainings.

    Raises:
        TamingError: the samples differ.
    """
    if values.keys() != ours.keys():
        raise TamingError("Two cells were measured on different objects, prompts or seeds. Run the stages evaluate and "
                          "score of all cells again.")  # fmt: skip
    differences = [value - ours[sample] for sample, value in values.items()]
    return (estimate_share_difference if m.share else estimate_mean)(differences, *factors(values))


def factors(samples: Iterable[Sample]) -> tuple[list[str], list[int]]:
    """The subject and the training of each sample: what another ablation would have others of."""
    listed = list(samples)
    return [subject for _, subject, _ in listed], [seed for seed, _, _ in listed]


@dataclass(frozen=True)
class Cost:
    """Size and time of the trainings of a cell."""

    trained: int  # parameters
    seconds: float | None  # mean of the trainings; None if the log of one was deleted


def cost(encoders: Sequence[Path], runs: Path) -> Cost:
    """The cost of the trainings of these encoders; the seconds are in the logs of their runs."""
    records = [json.loads((encoder / "training.json").read_text(encoding="utf-8")) for encoder in encoders]
    logs = [(runs / r["run"] / METRICS, r["params"]["batch_size"]) for r in records]
    trained = sum(records[0]["trained"].values())
    if not all(log.is_file() for log, _ in logs):
        return Cost(trained, None)
    return Cost(trained, sum(seconds(*log) for log in logs) / len(logs))


def seconds(log: Path, batch_size: int) -> float:
    """Seconds of all steps."""
    return sum(batch_size / json.loads(line)[SPEED] for line in log.read_text(encoding="utf-8").splitlines())
