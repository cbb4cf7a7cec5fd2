"""What a check of the judges writes: judge_check.json, judge_check.csv and a sheet of examples; and what it prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from taming_core.evaluation.corruptions import MaskedPhoto
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.judge_check import COMPARISONS, JudgeCheck, Outcome, Scores, Trial
from taming_core.evaluation.plots import write_csv
from taming_core.figures import image_grid
from taming_core.figures.image_grid import Cell
from taming_core.files import replacing_folder, write_json
from taming_core.storage.paths import AnyPath

SHEET_SIDE = 128  # pixels of a picture
COLUMNS = ("judge", "comparison", "win_rate", "low", "high", "true", "wrong", "objects", "trials")
SHOWN = ("true", "moved", *dict.fromkeys(c.wrong for c in COMPARISONS))  # the candidates on the sheet
CAPTIONS = {c.wrong: c.title for c in reversed(COMPARISONS)} | {
    "true": "another photo of it", "moved": "the object on another background",
}  # fmt: skip


def write(c: JudgeCheck, folder: Path) -> None:
    """Write the three files into an existing folder."""
    write_csv(folder / "judge_check.csv", COLUMNS, lines(c))
    image_grid.save(sheet(c), folder / "judge_check.png")
    write_json(folder / "judge_check.json", content(c))


def write_folder(c: JudgeCheck, out: AnyPath) -> None:
    """Write the whole output folder of the check; an earlier one is replaced when all is written."""
    with replacing_folder(out) as part:
        write(c, part)


def content(c: JudgeCheck) -> dict[str, Any]:
    """The content of judge_check.json: what was compared, the win rate in each comparison, and sentences."""
    relations = {t.identity: t.relation for t in c.trials}
    return {
        "split": c.split,
        "objects": len(relations),
        "trials": len(c.trials),
        "other_objects_of_the_same": {r: list(relations.values()).count(r) for r in ("class", "class group", "any")},
        "comparisons": {comparison.key: comparison.title for comparison in COMPARISONS},
        "judges": {judge: {key: _numbers(outcome) for key, outcome in of.items()} for judge, of in c.outcomes.items()},
        "sentences": sentences(c),
    }


def win_rates(c: JudgeCheck) -> dict[str, dict[str, dict[str, float]]]:
    """For the report: judge -> title of a comparison -> the win rate and the ends of its interval."""
    titles = {comparison.key: comparison.title for comparison in COMPARISONS}

    def ends(e: Estimate) -> dict[str, float]:
        return {"mean": round(e.mean, 4), "low": round(e.low, 4), "high": round(e.high, 4)}

    return {judge: {titles[key]: ends(o.win_rate) for key, o in of.items()} for judge, of in c.outcomes.items()}


def lines(c: JudgeCheck) -> list[dict[str, Any]]:
    """One line for each judge and comparison."""
    return [
        {"judge": judge, "comparison": key, **_numbers(outcome)}
        for judge, of in c.outcomes.items()
        for key, outcome in of.items()
    ]


def _numbers(o: Outcome) -> dict[str, float]:
    rate = {"win_rate": o.win_rate.mean, "low": o.win_rate.low, "high": o.win_rate.high}
    means = {"true": o.true, "wrong": o.wrong}
    return {**{key: round(value, 4) for key, value in (rate | means).items()}, "objects": o.objects,
            "trials": o.win_rate.count}  # fmt: skip


def sentences(c: JudgeCheck) -> list[str]:
    """For each judge what it tells from the object, what it is not shown to tell, and what it prefers to the object."""
    return [_sentence(judge, of) for judge, of in c.outcomes.items()]


def _sentence(judge: str, of: Mapping[str, Outcome]) -> str:
    titled = [(c.title, of[c.key].win_rate) for c in COMPARISONS if c.key in of]
    clauses = {
        "sees": [(title, e) for title, e in titled if e.low > 0.5],
        "is not shown to see": [(title, e) for title, e in titled if e.low <= 0.5 <= e.high],
        "prefers to the object itself": [(title, e) for title, e in titled if e.high < 0.5],
    }
    parts = [f"{verb}: {', '.join(f'{title} {percent(e)}' for title, e in of)}" for verb, of in clauses.items() if of]
    return f"{judge} {'; '.join(parts)}."


def percent(e: Estimate) -> str:
    """A win rate with its interval.

    >>> percent(Estimate(0.54, 0.481, 0.6, 24))
    '54 % (48 to 60)'
    """
    return f"{100 * e.mean:.0f} % ({100 * e.low:.0f} to {100 * e.high:.0f})"


def text(c: JudgeCheck, out: AnyPath) -> str:
    """The win rates as a table, which the command prints at its end."""
    judges, width = list(c.outcomes), max(len(comparison.title) for comparison in COMPARISONS)
    objects = len({t.identity for t in c.trials})
    head = f"{out}: {objects} objects of the {c.split} split, {len(c.trials)} pairs of photos"
    table = [f"  {'true photo scores higher than':{width}}  {''.join(f'{judge:>20}' for judge in judges)}"]
    for comparison in COMPARISONS:
        found = [c.outcomes[judge].get(comparison.key) for judge in judges]
        if any(found):
            rates = "".join(f"{percent(o.win_rate) if o else '-':>20}" for o in found)
            table.append(f"  {comparison.title:{width}}  {rates}")
    return "\n".join([head, *table, f"50 % is chance. {out / 'judge_check.png'} shows examples"])


def sheet(c: JudgeCheck) -> Image.Image:
    """A row of pictures for each example: the reference, and every candidate with its scores."""
    heading = (
        "Is it the object on the left? Red where a judge finds a wrong one as alike as another photo of the object"
    )
    rows = [_example(trial, scores) for trial, scores in c.examples]
    return image_grid.grid(heading, ["reference", *(CAPTIONS[name] for name in SHOWN)], rows, SHEET_SIDE)


def _example(trial: Trial, scores: Scores) -> list[Cell]:
    cells = [_cell(trial.candidates.get(name), name, scores) for name in SHOWN]
    return [Cell(_picture(trial.reference), trial.identity), *cells]


def _cell(photo: MaskedPhoto | None, name: str, scores: Scores) -> Cell:
    if photo is None:
        return Cell(None, "no visible difference")
    of = {judge: s[name] for judge, s in scores.items()}
    note = " · ".join(f"{judge.removesuffix(' judge')} {short(score)}" for judge, score in of.items())
    right = name in ("true", "moved") or all(score < scores[judge]["true"] for judge, score in of.items())
    return Cell(_picture(photo), note, None if name in ("true", "moved") else right)


def short(score: float) -> str:
    """A likeness to two decimals.

    >>> short(0.834), short(-0.06), short(1.0)
    ('.83', '-.06', '1.00')
    """
    return f"{score:.2f}".replace("0.", ".", 1) if abs(score) < 0.995 else f"{score:.2f}"


def _picture(photo: MaskedPhoto) -> Image.Image:
    return Image.fromarray(photo.image)
