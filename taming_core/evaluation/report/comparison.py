"""Conditions compared with this encoder on the same objects and prompts: paired differences, and sentences on them."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from taming_core.evaluation.conditions import CLASS_NOUN, DREAMBOOTH, DREAMBOOTH_LORA, NAMES, OURS, TEXTUAL_INVERSION
from taming_core.evaluation.intervals import Estimate, estimate_mean, estimate_share_difference
from taming_core.evaluation.measures import MEASURES, ImageScores, Measure
from taming_core.evaluation.result import Cost, Evaluation

Cells = Mapping[tuple[str, str], Sequence[ImageScores]]  # (identity, prompt) -> its images in one condition

BASELINES = (TEXTUAL_INVERSION, DREAMBOOTH_LORA, DREAMBOOTH, CLASS_NOUN)  # drawn instead of this encoder
LABELS = {**NAMES, OURS: "this encoder"}

# What a condition does more and less than this encoder.
VERBS = {
    "strict_pass": ("is accepted as the object more often", "is accepted as the object less often"),
    "strict_cosine": ("is closer to the object", "is less close to the object"),
    "judge_top1": ("is recognised more often", "is recognised less often"),
    "shape": ("keeps the shape better", "keeps the shape less well"),
    "scene_accuracy": ("shows the requested scene more often", "shows the requested scene less often"),
    "style_accuracy": ("shows the requested style more often", "shows the requested style less often"),
    "copying": ("copies the seen photo more", "copies the seen photo less"),
    "diversity": ("varies more", "varies less"),
    "cp": ("preserves the concept better", "preserves the concept less well"),
    "pf": ("follows the prompt better", "follows the prompt less well"),
}


def cells(rows: Iterable[ImageScores], condition: str) -> Cells:
    """The images of a condition by object and prompt."""
    found: dict[tuple[str, str], list[ImageScores]] = {}
    for r in rows:
        if r["condition"] == condition and "asked" in r:
            found.setdefault((r["identity"], r["asked"]), []).append(r)
    return found


def paired_difference(m: Measure, ours: Cells, theirs: Cells) -> Estimate | None:
    """By how much `theirs` exceeds `ours`, over the objects and prompts of both; None where they share none."""
    pairs = [(key, _mean(m.key, theirs[key]), _mean(m.key, ours[key])) for key in ours if key in theirs]
    differences = [(identity, b - a) for (identity, _), b, a in pairs if a is not None and b is not None]
    if not differences:
        return None
    identities, values = zip(*differences, strict=True)
    if m.unit and set(values) <= {-1.0, 0.0, 1.0}:
        return estimate_share_difference(values, identities)
    span = 1.0 if m.unit else m.highest - m.lowest
    return estimate_mean(values, identities, low=-span, high=span)


def _mean(key: str, rows: Iterable[ImageScores]) -> float | None:
    values = [r[key] for r in rows if key in r]
    return fmean(values) if values else None


def direction(e: Estimate | None) -> int:
    """1 or -1 where the interval of a difference excludes 0, else 0."""
    return 0 if e is None else (e.low > 0) - (e.high < 0)


def is_better(m: Measure, e: Estimate | None) -> int:
    """1 where a difference is an improvement beyond chance, -1 where it is the opposite, else 0."""
    return direction(e) * (1 if m.higher_is_better else -1)


def costs(e: Evaluation) -> Mapping[str, Cost]:
    """What a new object costs, where there are costs to compare: seconds vary, and a page without them does not."""
    return e.costs if len(e.costs) > 1 else {}


def sentences(e: Evaluation) -> list[str]:
    """For each baseline, what it does better and worse than this encoder beyond chance."""
    ours = cells(e.rows, OURS)
    return [_sentence(c, ours, cells(e.rows, c), costs(e)) for c in BASELINES if c in e.summary]


def _sentence(condition: str, ours: Cells, theirs: Cells, costs: Mapping[str, Cost]) -> str:
    found = {m: paired_difference(m, ours, theirs) for m in MEASURES if m.key in VERBS}
    clear = [_clause(m, d) for m, d in found.items() if d is not None and direction(d)]
    unclear = [m.title.lower() for m, d in found.items() if d is not None and not direction(d)]
    name = "The class noun alone" if condition == CLASS_NOUN else NAMES[condition]
    text = f"{name} {_listed(clear)}" if clear else f"{name} does not differ from this encoder beyond chance"
    text += f"; no clear difference in {_listed(unclear)}" if unclear and clear else ""
    return f"{text}{_price(condition, costs)}."


def _clause(m: Measure, d: Estimate) -> str:
    return f"{VERBS[m.key][d.mean < 0]} by {amount(m, d)}"


def amount(m: Measure, d: Estimate) -> str:
    """The size of a difference and its interval, in points of a percentage for shares."""
    ends = sorted((abs(d.low), abs(d.high)))
    if m.unit:
        return f"{100 * abs(d.mean):.0f} points ({100 * ends[0]:.0f} to {100 * ends[1]:.0f})"
    return f"{abs(d.mean):.2f} ({ends[0]:.2f} to {ends[1]:.2f})"


def _price(condition: str, costs: Mapping[str, Cost]) -> str:
    if condition not in costs or OURS not in costs or costs[OURS].seconds <= 0 or costs[condition].seconds <= 0:
        return ""
    ratio = costs[condition].seconds / costs[OURS].seconds
    times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return f". A new object takes it {duration(costs[condition].seconds)}, {times} times this encoder's time"


def _listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> _listed(["shape", "scene", "style"])
    'shape, scene and style'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.021), duration(75), duration(1500)
    ('0.021 s', '75 s', '25 min')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in the unit that reads best.

    >>> size(262_144), size(4_500_000_000)
    ('262 KB', '4.5 GB')
    """
    unit, power = next(((u, p) for u, p in (("GB", 9), ("MB", 6), ("KB", 3)) if count >= 10**p), ("bytes", 0))
    value = count / 10**power
    return f"{value:.1f} {unit}" if power > 0 and value < 10 else f"{value:.0f} {unit}"
