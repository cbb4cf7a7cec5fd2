"""The evaluation for people: one HTML page that needs no other file, pictures first, and the same pictures as PNG."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from taming_core.evaluation.measures import MEASURES, ImageScores, Measure, Summary
from taming_core.evaluation.plots import NAMES
from taming_core.evaluation.protocol import ANOTHER, NO_OBJECT, OURS, REAL, EvalSubject, scene_prompt
from taming_core.evaluation.statistics import Estimate
from taming_core.figures.image_grid import Cell
from taming_core.params.sections import EvaluateParams

TEMPLATE = Path(__file__).with_suffix(".html")
MAX_SUBJECTS = 48  # at most, in the grid of pictures
SIDE = 192  # pixels of a picture in the page, at most
TILES = ("judge_top1", "strict_pass", "shape", "scene_accuracy", "style_accuracy")
MARKS = {"strict_cosine": "strict", "shape": "shape"}  # below a picture in which an object was found
TITLES = {m.key: m for m in MEASURES}


@dataclass(frozen=True)
class Evaluation:
    """All that a report tells of."""

    subjects: Sequence[EvalSubject]
    rows: Sequence[ImageScores]
    images: Sequence[Image.Image]  # of the rows, in the same order
    summary: Summary
    params: EvaluateParams
    facts: Mapping[str, str]  # how it was measured


class Table(NamedTuple):
    """Pictures under captions."""

    columns: list[str]
    rows: list[list[Cell]]


def pictures(e: Evaluation) -> Table:
    """Each thing's subject and its images, the first of each prompt."""
    asked = [*e.params.scenes, *e.params.styles]
    found = {(r["identity"], r["asked"]): _cell(r, i) for r, i in reversed(_pairs(e, OURS))}
    return Table(
        ["the object", *(a.removesuffix(" of") for a in asked)],
        [[_subject(t), *(found[t.identity, a] for a in asked)] for t in e.subjects[:MAX_SUBJECTS]],
    )


def controls(e: Evaluation) -> Table:
    """For each control object its first scene in every condition."""
    found: dict[tuple[str, str], tuple[ImageScores, Image.Image]] = {}
    for condition in NAMES:
        for r, i in _pairs(e, condition):
            if r["kind"] != "style":
                found.setdefault((condition, r["identity"]), (r, i))
    here = [t for t in e.subjects if (NO_OBJECT, t.identity) in found]
    conditions = [c for c in (OURS, NO_OBJECT, ANOTHER, REAL) if any((c, t.identity) in found for t in here)]

    def cell(condition: str, t: EvalSubject) -> Cell:
        pair = found.get((condition, t.identity))
        return Cell(None) if pair is None else _cell(*pair)

    names = ["the object", *(NAMES[c] for c in conditions)]
    return Table(names, [[_subject(t), *(cell(c, t) for c in conditions)] for t in here])


def _pairs(e: Evaluation, condition: str) -> list[tuple[ImageScores, Image.Image]]:
    return [(r, i) for r, i in zip(e.rows, e.images, strict=True) if r["condition"] == condition]


def _subject(t: EvalSubject) -> Cell:
    return Cell(t.encoder_image, t.identity)


def _cell(row: ImageScores, image: Image.Image) -> Cell:
    """An image with its marks."""
    marks = [f"judge {_short(row['cosine'])}"]
    if row.get("shape_found") == 0:
        marks.append("nothing found")
    else:
        marks += [f"{word} {_short(row[key])}" for key, word in MARKS.items() if key in row]
    if row["condition"] == ANOTHER:
        marks.append(f"tokens of {row['shown']}")
    wrong = _wrong(row) if row["condition"] == OURS else []
    return Cell(image, " · ".join([*marks, *wrong]), False if wrong else None)


def _short(value: float) -> str:
    """Two digits in little room.

    >>> _short(0.745), _short(-0.06), _short(1.0)
    ('.74', '-.06', '1.0')
    """
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.1f}"


def _wrong(row: ImageScores) -> list[str]:
    """What the judges hold against an image."""
    found = ["not recognised"] if row.get("judge_top1") == 0 else []
    if row.get("strict_pass") == 0 and row.get("shape_found") != 0:
        found.append("not accepted")
    return [*found, f"read as “{row['chosen']}”"] if row["chosen"] != row["asked"] else found


def sentences(summary: Summary) -> list[str]:
    """What the numbers say, in plain words."""
    ours = summary[OURS]
    right, beside = _share(ours["judge_top1"]), _beside(summary, "judge_top1")
    text = [f"The judge recognises the right object in {right} of the images{beside}."]
    if "strict_pass" in ours:
        accepted, beside = _share(ours["strict_pass"]), _beside(summary, "strict_pass")
        text.append(
            f"The strict judge, which sees the cut-out object alone, takes it for the subject in {accepted} of the "
            f"images{beside}."
        )
    text.append(
        f"Its shape agrees with the subject's to {ours['shape'].mean:.2f}{_beside(summary, 'shape')}; "
        "even different things agree in part, so read it against those."
    )
    text.append(f"The scene is the one that was asked for in {_share(ours['scene_accuracy'])} of the images.")
    if "style_accuracy" in ours:
        text.append(f"The style is the one that was asked for in {_share(ours['style_accuracy'])}.")
    return text


def _share(e: Estimate) -> str:
    return f"{100 * e.mean:.0f} % ({100 * e.low:.0f} to {100 * e.high:.0f})"


def _beside(summary: Summary, key: str) -> str:
    """The same measure in the other conditions, as a half-sentence."""
    words = {REAL: "of real photos", ANOTHER: "with another object's tokens", NO_OBJECT: "without object tokens"}
    said = [f"{w} {TITLES[key].format(summary[c][key].mean)}" for c, w in words.items() if key in summary.get(c, {})]
    return f"; {', '.join(said)}" if said else ""


def tiles(summary: Summary) -> list[dict[str, str]]:
    """The main numbers, each beside the ceiling and the controls."""
    words = {REAL: "real photos", ANOTHER: "another object", NO_OBJECT: "no object"}
    found = []
    for m in (TITLES[key] for key in TILES if key in summary[OURS]):
        beside = [f"{w} {m.format(summary[c][m.key].mean)}" for c, w in words.items() if m.key in summary.get(c, {})]
        found.append({"value": m.format(summary[OURS][m.key].mean), "name": m.title, "beside": ", ".join(beside)})
    return found


def score_rows(summary: Summary) -> list[dict[str, Any]]:
    """Every measure that was taken, in each condition."""
    conditions = [c for c in NAMES if c in summary]

    def cell(m: Measure, e: Estimate | None) -> dict[str, str] | None:
        return e and {"value": m.format(e.mean), "interval": f"{m.format(e.low)} to {m.format(e.high)}"}

    return [
        {"title": m.title, "meaning": m.meaning, "cells": [cell(m, summary[c].get(m.key)) for c in conditions]}
        for m in MEASURES
        if any(m.key in summary[c] for c in conditions)
    ]


def html(e: Evaluation, plots: Path) -> str:
    """The page; `plots` is the folder with fidelity.png and per_object.png."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        TEMPLATE.read_text("utf-8")
    )
    drawn = sum(r["condition"] != REAL for r in e.rows)
    return page.render(
        title="Objects it never saw, where the text asked for them",
        subtitle=f"{len(e.subjects)} held-out objects, {drawn} images, split “{e.params.split}”.",
        side=128,
        tiles=tiles(e.summary),
        pictures=pictures(e),
        controls=controls(e),
        prompt=scene_prompt(e.params.scenes[0]),
        table=picture_table,
        sentences=sentences(e.summary),
        columns=[NAMES[c] for c in NAMES if c in e.summary],
        scores=score_rows(e.summary),
        fidelity=png_url(plots / "fidelity.png"),
        per_object=png_url(plots / "per_object.png"),
        facts=list(e.facts.items()),
    )


def picture_table(table: Table) -> Markup:
    """The pictures as an HTML table."""
    head = Markup("").join(Markup("<th>{}</th>").format(c) for c in table.columns)
    body = Markup("").join(Markup("<tr>{}</tr>\n").format(Markup("").join(map(_td, row))) for row in table.rows)
    return Markup(
        '<div class="scroll"><table class="pictures"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, body)


def _td(cell: Cell) -> Markup:
    if cell.picture is None:
        return Markup("<td></td>")
    kind = "name" if cell.picture.mode == "RGBA" else "bad" if cell.good is False else ""
    return Markup('<td><img alt="" src="{}"><small class="{}">{}</small></td>').format(
        url(cell.picture), kind, cell.note
    )


def url(picture: Image.Image) -> str:
    """A picture as part of the page, at most SIDE pixels wide."""
    small, buffer = picture.copy(), BytesIO()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if small.mode == "RGBA":
        small.save(buffer, "PNG")
        return _data("png", buffer.getvalue())
    small.save(buffer, "JPEG", quality=92, subsampling=0)
    return _data("jpeg", buffer.getvalue())


def png_url(path: Path) -> str:
    """A PNG file as part of the page."""
    return _data("png", path.read_bytes())


def _data(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
