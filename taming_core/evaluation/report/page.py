"""The report of an evaluation: one self-contained HTML page, pictures first."""

import base64
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from taming_core.evaluation.conditions import ANOTHER, NAMES, NO_OBJECT, OURS, REAL
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.measures import MEASURES, Measure, Summary
from taming_core.evaluation.report import cards, comparison, pictures, tables, tradeoffs
from taming_core.evaluation.report.comparison import BASELINES, LABELS, duration
from taming_core.evaluation.result import Evaluation

FOLDER = Path(__file__).parent
TILES = ("judge_top1", "strict_pass", "shape", "scene_accuracy", "style_accuracy")
MAX_TILES = 5
TITLES = {m.key: m for m in MEASURES}


class Tile(NamedTuple):
    """A number of the heading, and what it is to be compared with."""

    value: str
    name: str
    others: str


def sentences(summary: Summary) -> list[str]:
    """The main scores in sentences."""
    ours = summary[OURS]
    text = list[str]()
    if "judge_top1" in ours:  # without a scene there are images in styles alone, which fidelity is not measured on
        right, others = _share(ours["judge_top1"]), _other_conditions(summary, "judge_top1")
        text.append(f"The judge recognises the right object in {right} of the images{others}.")
        text += _reference_sentences(summary)
    if "strict_pass" in ours:
        accepted, others = _share(ours["strict_pass"]), _other_conditions(summary, "strict_pass")
        text.append(
            f"The strict judge, which compares the cut-out object alone, accepts it as the subject in {accepted} of "
            f"the images{others}."
        )
    if "shape" in ours:
        text.append(
            f"The shape agreement is {ours['shape'].mean:.2f}{_other_conditions(summary, 'shape')}; "
            "different objects agree in part, too, so compare it with those."
        )
    if "scene_accuracy" in ours:
        text.append(f"The scene is the requested one in {_share(ours['scene_accuracy'])} of the images.")
    if "style_accuracy" in ours:
        text.append(f"The style is the requested one in {_share(ours['style_accuracy'])}.")
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


def tiles(e: Evaluation) -> list[Tile]:
    """The main scores beside those of real photos, the best baseline and the controls; costs are the last of them."""
    found = [_tile(TITLES[key], e.summary) for key in TILES if key in e.summary[OURS]]
    return [*found[: MAX_TILES - 1], _cost_tile(e)] if OURS in comparison.costs(e) else found[:MAX_TILES]


def _tile(m: Measure, summary: Summary) -> Tile:
    best = best_baseline(m, summary)
    shown = [c for c in (REAL, best, ANOTHER, NO_OBJECT) if c and m.key in summary.get(c, {})]
    words = [f"{NAMES[c]} {m.format(summary[c][m.key].mean)}" for c in (shown[:2] if best else shown)]
    return Tile(m.format(summary[OURS][m.key].mean), m.title, ", ".join(words).replace(" %", "\u00a0%"))


def best_baseline(m: Measure, summary: Summary) -> str | None:
    """The baseline with the best mean of a measure."""
    taken = [c for c in BASELINES if m.key in summary.get(c, {})]
    return max(taken, key=lambda c: summary[c][m.key].mean * (1 if m.higher_is_better else -1), default=None)


def _cost_tile(e: Evaluation) -> Tile:
    others = {NAMES[c]: e.costs[c].seconds for c in BASELINES if c in e.costs and e.costs[c].seconds > 0}
    words = ", ".join(f"{name} {duration(seconds)}" for name, seconds in others.items())
    return Tile(duration(e.costs[OURS].seconds), "Time of a new object", words)


def html(e: Evaluation, budget: int = pictures.BUDGET) -> str:
    """The page; `budget` is that of its pictures, in bytes."""
    everything = cards.cards(e)
    side, count = pictures.fitting(list(cards.pictures(everything)), budget)
    shown = cards.within(everything, count)
    style, script = ((FOLDER / f"page.{suffix}").read_text("utf-8") for suffix in ("css", "js"))
    templates = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html").render(
        title=e.protocol.get("title") or "Held-out objects in prompted scenes and styles",
        protocol=_protocol(e.protocol),
        subtitle=subtitle(e),
        style=Markup(style),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tiles=tiles(e),
        cards=shown,
        objects=len(everything),
        prompts=[p.removesuffix(" of") for p in cards.prompts(e)],
        compared=cards.has_photos_or_others(shown),
        label=LABELS[OURS],
        worst=cards.worst(e, everything),
        keys={s.key for c in shown for s in (c.seen, *c.shots)},
        url=partial(pictures.url, side=side),
        comparisons=comparison.sentences(e),
        sentences=sentences(e.summary),
        methods=tables.methods(e),
        all_measures=tables.all_measures(e),
        per_object=tables.objects(e),
        strata=tables.strata(e),
        judge_check=tables.judge_check(e),
        charts=tradeoffs.charts(e),
        interval_charts=tradeoffs.interval_charts(e),
        facts=list(e.facts.items()),
        settings=tables.settings(e),
    )


def subtitle(e: Evaluation) -> str:
    """How much was drawn."""
    drawn = sum(r["condition"] != REAL for r in e.rows)
    return f"{len(e.subjects)} held-out objects, {drawn} images, split “{e.params.split}”"


def _protocol(protocol: Mapping[str, Any]) -> str:
    """Name and short fingerprint of the protocol."""
    name, fingerprint = (str(protocol.get(key) or "") for key in ("name", "fingerprint"))
    return " ".join(filter(None, (f"“{name}”" if name else "", fingerprint[:8])))
