"""The report of an evaluation: one self-contained HTML page, pictures first."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from taming_core.evaluation.conditions import ANOTHER, NAMES, NO_OBJECT, OURS, REAL
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES, ImageScores, Measure, Summary
from taming_core.evaluation.protocol import EvalSubject, prompts_of
from taming_core.evaluation.result import Evaluation
from taming_core.figures.image_grid import Cell

TEMPLATE = Path(__file__).with_suffix(".html")
MAX_SUBJECTS = 48  # in the grid of pictures
SIDE = 192  # maximum side of a picture in the page, in pixels
TILES = ("judge_top1", "strict_pass", "shape", "scene_accuracy", "style_accuracy")
MARKS = {"strict_cosine": "strict", "shape": "shape"}  # below a picture in which an object was found
TITLES = {m.key: m for m in MEASURES}


class Table(NamedTuple):
    """A grid of pictures with column headings."""

    columns: list[str]
    rows: list[list[Cell]]


def pictures(e: Evaluation) -> Table:
    """The subject of each object and its images, the first of each prompt."""
    prompts = list(dict.fromkeys(prompt.asked for prompt in prompts_of(e.params)))
    cells = {(r["identity"], r["asked"]): _cell(r, i) for r, i in reversed(_pairs(e, OURS))}
    return Table(
        ["the object", *(a.removesuffix(" of") for a in prompts)],
        [[_subject(t), *(cells.get((t.identity, a), Cell(None)) for a in prompts)] for t in e.subjects[:MAX_SUBJECTS]],
    )


def controls(e: Evaluation) -> Table:
    """For each control object its first scene in every condition."""
    first: dict[tuple[str, str], tuple[ImageScores, Image.Image]] = {}
    for condition in NAMES:
        for r, i in _pairs(e, condition):
            if r["kind"] != "style":
                first.setdefault((condition, r["identity"]), (r, i))
    subjects = [t for t in e.subjects if (NO_OBJECT, t.identity) in first]
    conditions = [c for c in (OURS, NO_OBJECT, ANOTHER, REAL) if any((c, t.identity) in first for t in subjects)]

    def cell(condition: str, t: EvalSubject) -> Cell:
        pair = first.get((condition, t.identity))
        return Cell(None) if pair is None else _cell(*pair)

    names = ["the object", *(NAMES[c] for c in conditions)]
    return Table(names, [[_subject(t), *(cell(c, t) for c in conditions)] for t in subjects])


def _pairs(e: Evaluation, condition: str) -> list[tuple[ImageScores, Image.Image]]:
    return [(r, i) for r, i in zip(e.rows, e.images, strict=True) if r["condition"] == condition]


def _subject(t: EvalSubject) -> Cell:
    return Cell(t.encoder_image, t.identity)


def _cell(row: ImageScores, image: Image.Image) -> Cell:
    """An image with its scores."""
    marks = [f"judge {_short_number(row['cosine'])}"]
    if row.get("shape_found") == 0:
        marks.append("no object found")
    else:
        marks += [f"{word} {_short_number(row[key])}" for key, word in MARKS.items() if key in row]
    if row["condition"] == ANOTHER:
        marks.append(f"tokens of {row['shown']}")
    wrong = _failures(row) if row["condition"] == OURS else []
    return Cell(image, " · ".join([*marks, *wrong]), False if wrong else None)


def _short_number(value: float) -> str:
    """Two decimals without the leading zero.

    >>> _short_number(0.745), _short_number(-0.06), _short_number(1.0)
    ('.74', '-.06', '1.0')
    """
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.1f}"


def _failures(row: ImageScores) -> list[str]:
    """The checks that an image fails."""
    failures = ["not recognised"] if row.get("judge_top1") == 0 else []
    if row.get("strict_pass") == 0 and row.get("shape_found") != 0:
        failures.append("not accepted")
    return [*failures, f"read as “{row['chosen']}”"] if row.get("chosen", row["asked"]) != row["asked"] else failures


def sentences(summary: Summary) -> list[str]:
    """The main scores in sentences."""
    ours = summary[OURS]
    text = _fidelity_sentences(summary) if "judge_top1" in ours else []
    if "scene_accuracy" in ours:
        text.append(f"The scene is the requested one in {_share(ours['scene_accuracy'])} of the images.")
    if "style_accuracy" in ours:
        text.append(f"The style is the requested one in {_share(ours['style_accuracy'])}.")
    return text


def _fidelity_sentences(summary: Summary) -> list[str]:
    """The scores of the object, which images in a style do not have."""
    ours = summary[OURS]
    right, others = _share(ours["judge_top1"]), _other_conditions(summary, "judge_top1")
    text = [f"The judge recognises the right object in {right} of the images{others}.", *_reference_sentences(summary)]
    if "strict_pass" in ours:
        accepted, others = _share(ours["strict_pass"]), _other_conditions(summary, "strict_pass")
        text.append(
            f"The strict judge, which compares the cut-out object alone, accepts it as the subject in {accepted} of "
            f"the images{others}."
        )
    text.append(
        f"The shape agreement is {ours['shape'].mean:.2f}{_other_conditions(summary, 'shape')}; "
        "different objects agree in part, too, so compare it with those."
    )
    return text


def _reference_sentences(summary: Summary) -> list[str]:
    """What the images are compared with, and how much of the likeness is a copy of the seen picture."""
    ours = summary[OURS]
    measured = ours["other_photos"].mean
    if measured == 0:
        text = (
            "Images are compared with the very picture that the encoder saw, since no object has another photo: a copy "
        )
        return [text + "of it would pass for the object."]
    where = "" if measured == 1 else f" (in {100 * measured:.0f} % of the images; others have the seen picture alone)"
    c, others = ours["copying"], _other_conditions(summary, "copying")
    return [
        f"Images are compared with photos of the object that the encoder did not see{where}. They are more like the "
        f"seen picture by {c.mean:.2f} ({c.low:.2f} to {c.high:.2f}){others}: more than real photos is copying."
    ]


def _share(e: Estimate) -> str:
    return f"{100 * e.mean:.0f} % ({100 * e.low:.0f} to {100 * e.high:.0f})"


def _other_conditions(summary: Summary, key: str) -> str:
    """The same measure in the other conditions, as a clause."""
    words = {REAL: "of real photos", ANOTHER: "with another object's tokens", NO_OBJECT: "without object tokens"}
    clauses = [f"{w} {TITLES[key].format(summary[c][key].mean)}" for c, w in words.items() if key in summary.get(c, {})]
    return f"; {', '.join(clauses)}" if clauses else ""


def tiles(summary: Summary) -> list[dict[str, str]]:
    """The main scores, each with the ceiling (real photos) and the controls."""
    words = {REAL: "real photos", ANOTHER: "another object", NO_OBJECT: "no object"}
    tiles: list[dict[str, str]] = []
    for m in (TITLES[key] for key in TILES if key in summary[OURS]):
        others = [f"{w} {m.format(summary[c][m.key].mean)}" for c, w in words.items() if m.key in summary.get(c, {})]
        tiles.append({"value": m.format(summary[OURS][m.key].mean), "name": m.title, "others": ", ".join(others)})
    return tiles


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
        title="Held-out objects in prompted scenes and styles",
        subtitle=f"{len(e.subjects)} held-out objects, {drawn} images, split “{e.params.split}”.",
        side=128,
        tiles=tiles(e.summary),
        pictures=pictures(e),
        controls=controls(e),
        prompt=prompts_of(e.params)[0].text,
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
    """A picture as a data URL, at most SIDE pixels wide and high."""
    small, buffer = picture.copy(), BytesIO()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if small.mode == "RGBA":
        small.save(buffer, "PNG")
        return _data("png", buffer.getvalue())
    small.save(buffer, "JPEG", quality=92, subsampling=0)
    return _data("jpeg", buffer.getvalue())


def png_url(path: Path) -> str:
    """A PNG file as a data URL."""
    return _data("png", path.read_bytes())


def _data(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
