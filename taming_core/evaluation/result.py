"""The data of a finished evaluation, from which its report, plots and metrics are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from taming_core.evaluation.measures import ImageScores, Summary
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.strata import Strata
from taming_core.params.sections import EvaluateParams


class Cost(NamedTuple):
    """What a new object costs in one condition: medians over objects."""

    seconds: float
    bytes: int  # to keep of each object
    peak_bytes: int | None = None  # of memory, above what the loaded base takes; None where it was not measured


@dataclass(frozen=True)
class Evaluation:
    """The data of a finished evaluation."""

    subjects: Sequence[EvalSubject]
    rows: Sequence[ImageScores]
    images: Sequence[Image.Image]  # of the rows, in the same order
    summary: Summary
    params: EvaluateParams
    facts: Mapping[str, str]  # how the scores were measured, by heading
    costs: Mapping[str, Cost] = field(default_factory=dict[str, Cost])  # by condition
    strata: Strata = field(default_factory=dict[str, Mapping[str, Summary]])
    protocol: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the content of protocol.json
    judge_check: Mapping[str, Any] = field(default_factory=dict[str, Any])  # judge -> comparison -> mean, low and high
