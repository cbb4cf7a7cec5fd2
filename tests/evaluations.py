"""Finished evaluations of invented scores, for what is made of them: the report, plots and tables."""

from typing import Any

import numpy as np
from PIL import Image

from taming_core.evaluation import measures
from taming_core.evaluation.conditions import OURS, REAL
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.result import Cost, Evaluation
from taming_core.params.load import load_params, packaged_params

ASKED = ("on the beach", "in the snow", "a pencil sketch of")
HOSTILE = (
    "<script>document.title = 'broken'</script>", "\" onerror=\"document.title = 'broken'\" '", "\u202eحصان أزرق",
    "x" * 300, "🦄🧸 teddy 👨‍👩‍👧", "a & b; </style></title></script>", "{{ 7 * 7 }}{% raw %}", "",
)  # fmt: skip
BASELINES = {"textual_inversion": -0.1, "dreambooth": 0.1}  # and how much closer to the object they are than ours


def picture(number: int, side: int = 64) -> Image.Image:
    """A plain picture whose colour tells the number."""
    return Image.fromarray(np.full((side, side, 3), (number * 37 % 256, number * 91 % 256, 99), np.uint8))


def name(number: int, hostile: bool = False) -> str:
    return f"{HOSTILE[number % len(HOSTILE)]}{number}" if hostile else f"robot {number}"


def image_row(condition: str, identity: str, asked: str, likeness: float, **more: Any) -> dict[str, Any]:
    """A row of scores.jsonl of a drawn image."""
    style = asked.endswith(" of")
    row = {"condition": condition, "identity": identity, "kind": "style" if style else "scene", "asked": asked,
           "prompt": f"a photo of a <object> {asked}", "seed": 1, "image": f"{condition}.png", "shown": identity,
           "other_photos": 1.0, "cosine": likeness, "judge_top1": float(likeness > 0.5), "judge_cosine": likeness,
           "judge_cosine_seen": likeness + 0.1, "copying": 0.1, "chosen": asked}  # fmt: skip
    if style:
        return {**row, "style_accuracy": 1.0, **more}
    strict = {"shape": likeness, "shape_found": 1.0, "strict_top1": 1.0, "strict_cosine": likeness}
    return {**row, **strict, "strict_pass": float(likeness > 0.6), "scene_accuracy": 1.0, **more}


def photo_row(identity: str) -> dict[str, Any]:
    """A row of scores.jsonl of a real photo."""
    about = {"condition": REAL, "identity": identity, "kind": "photo", "shown": identity, "photo": 0}
    scores = {"cosine": 0.9, "judge_top1": 1.0, "judge_cosine": 0.9, "copying": 0.0, "shape": 0.95}
    return {**about, "other_photos": 1.0, **scores}


def likeness(number: int, prompt: int) -> float:
    """Of an object's image of a prompt by this encoder: different for each."""
    return 0.55 + 0.02 * (number % 8) + 0.01 * prompt


def rows_of(number: int, identity: str, asked: tuple[str, ...], shifts: dict[str, float]) -> list[dict[str, Any]]:
    """All rows of an object."""
    drawn = [
        image_row(condition, identity, a, likeness(number, k) + shift + 0.004 * (number % 3) * bool(shift))
        for condition, shift in {OURS: 0.0, **shifts}.items()
        for k, a in enumerate(asked)
    ]
    return [*drawn, photo_row(identity)]


def evaluation(
    objects: int, asked: tuple[str, ...] = ASKED, shifts: dict[str, float] = BASELINES, hostile: bool = False,
    more: list[dict[str, Any]] | None = None, **others: Any,
) -> Evaluation:  # fmt: skip
    """An evaluation of invented scores: `shifts` are the other conditions, and `more` further rows."""
    names = [name(n, hostile) for n in range(objects)]
    rows = [r for n, identity in enumerate(names) for r in rows_of(n, identity, asked, shifts)] + (more or [])
    seen = Image.new("RGBA", (64, 64), (200, 40, 40, 128))
    subjects = [EvalSubject(identity, seen, seen, (picture(0),), name(0, hostile)) for identity in names]
    p = load_params(packaged_params()).evaluate
    images = [picture(n) for n in range(len(rows))]
    facts = {"Encoder": "mini & others", "Judge": name(0, hostile)}
    return Evaluation(subjects, rows, images, measures.summary(rows), p, facts, **others)


COSTS = {OURS: Cost(0.02, 262_144, 4_000_000), "textual_inversion": Cost(180, 4_096, 300_000_000),
         "dreambooth": Cost(400, 99_000_000)}  # fmt: skip
PROTOCOL = {"name": "mini", "fingerprint": "a1b2c3d4e5f6", "sampling": {"steps": 9}}
CHECK = {
    "strict judge": {"another photo of the object": {"mean": 0.93, "low": 0.88, "high": 0.97}, "part swapped": 0.71}
}


def whole(objects: int = 6, **others: Any) -> Evaluation:
    """An evaluation with everything that a report may show."""
    sweep = [
        image_row(condition, name(n), a, likeness(n, k) + shift, **{key: value})
        for condition, shift, key, value in (
            ("guidance_1.5", -0.1, "guidance", 1.5), ("guidance_6", 0.05, "guidance", 6.0),
            ("dreambooth_step_100", -0.2, "steps", 100), ("dreambooth_step_200", 0.0, "steps", 200),
        )
        for n in range(objects)
        for k, a in enumerate(ASKED)
    ]  # fmt: skip
    e = evaluation(objects, more=sweep, costs=COSTS, protocol=PROTOCOL, judge_check=CHECK, **others)
    strata = {"prompt kind": {k: measures.summary([r for r in e.rows if r["kind"] in (k, "photo")])
                              for k in ("scene", "style")}}  # fmt: skip
    return Evaluation(**{**vars(e), "strata": strata})
