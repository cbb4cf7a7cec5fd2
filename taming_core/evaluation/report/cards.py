"""The pictures of each object with their words: the encoder's input, and an image of each prompt in each condition."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from taming_core.evaluation.conditions import ANOTHER, OURS, REAL
from taming_core.evaluation.measures import MEASURES, ImageScores, Measure
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.report.comparison import BASELINES, LABELS
from taming_core.evaluation.result import Evaluation
from taming_core.figures.image_grid import Cell

MARKS = {"strict_cosine": "strict", "cosine": "judge", "shape": "shape"}  # below a picture
WORST = 24  # images by each score
WORST_BY = (
    "strict_cosine", "judge_cosine", "dinov2_masked", "dino_masked", "shape", "cp", "pf", "clip_t_l14", "clip_t_b32",
    "copying", "copy_score",
)  # fmt: skip


class Shot(NamedTuple):
    """One picture of the page."""

    key: str  # of its element
    picture: Image.Image
    condition: str  # empty for the encoder's input
    label: str  # the condition in words
    prompt: str
    prompt_number: int | None  # None for a picture without a prompt
    marks: str
    failures: str
    scores: str  # all main scores in words
    href: str  # its file beside the page, or its place in it
    alt: str


class Card(NamedTuple):
    """An object and its pictures."""

    number: int
    subject: EvalSubject
    seen: Shot
    shots: Sequence[Shot]


class Worst(NamedTuple):
    """The worst images by one score, each with its object."""

    measure: Measure
    pairs: Sequence[tuple[Card, Shot]]


def prompts(e: Evaluation) -> list[str]:
    """What this encoder's images show beside the object, in the order of the images."""
    return list(dict.fromkeys(r["asked"] for r in e.rows if r["condition"] == OURS))


def cards(e: Evaluation) -> list[Card]:
    """Every object with the first image of each prompt, in the order of conditions and prompts."""
    numbers = {asked: n for n, asked in enumerate(prompts(e))}
    first = _first_rows(e)
    order = {c: n for n, c in enumerate(LABELS)}

    def shots(t: EvalSubject, number: int) -> list[Shot]:
        of = sorted(first[t.identity].items(), key=lambda item: (order[item[0][0]], numbers.get(item[0][1], 0)))
        return [shot(e, i, number, numbers) for _, i in of]

    return [Card(n, t, seen(t, n), shots(t, n)) for n, t in enumerate(e.subjects)]


def _first_rows(e: Evaluation) -> dict[str, dict[tuple[str, str], int]]:
    """For each identity the number of its first row of each condition and prompt."""
    first: dict[str, dict[tuple[str, str], int]] = {t.identity: {} for t in e.subjects}
    for i, r in enumerate(e.rows):
        if r["condition"] in LABELS:
            first[r["identity"]].setdefault((r["condition"], r.get("asked", "")), i)
    return first


def seen(t: EvalSubject, number: int) -> Shot:
    """The encoder's input."""
    words = "the encoder's only input"
    return Shot(
        f"s{number}", t.encoder_image, "", words, "", None, "", "", "", f"#object-{number}", f"{t.identity}: {words}"
    )


def shot(e: Evaluation, i: int, number: int, prompt_numbers: Mapping[str, int]) -> Shot:
    """The image of a row, of the object with a number."""
    r = e.rows[i]
    asked, label = str(r.get("asked", "")), LABELS[r["condition"]]
    href = f"images/{r['image']}" if r.get("image") else f"#object-{number}"
    shown = f"{label} ({r['shown']})" if r["condition"] == ANOTHER else label
    alt = ", ".join(filter(None, (f"{r['identity']}: {shown}", asked)))
    return Shot(
        f"i{i}", e.images[i], r["condition"], shown, asked.removesuffix(" of"), prompt_numbers.get(asked), marks(r),
        ", ".join(failures(r)), scores(r), href, alt,
    )  # fmt: skip


def marks(r: ImageScores) -> str:
    """Two scores of an image in short: of the object by the strictest judge there is, and of its shape."""
    if r.get("shape_found") == 0:
        return "no object found"
    taken = [f"{word} {short_number(r[key])}" for key, word in MARKS.items() if key in r]
    return " · ".join([taken[0], *(t for t in taken[1:] if not t.startswith("judge"))]) if taken else ""


def failures(r: ImageScores) -> list[str]:
    """The checks that an image drawn for its object fails."""
    if r["condition"] not in (OURS, *BASELINES):
        return []
    found = ["not recognised"] if r.get("judge_top1") == 0 else []
    found += ["not accepted"] if r.get("strict_pass") == 0 else []
    chosen = r.get("chosen")
    return [*found, f"read as “{chosen.removesuffix(' of')}”"] if chosen and chosen != r.get("asked") else found


def short_number(value: float) -> str:
    """Two decimals without the leading zero.

    >>> short_number(0.745), short_number(-0.06), short_number(1.0)
    ('.74', '-.06', '1.0')
    """
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.1f}"


def scores(r: ImageScores) -> str:
    """The scores of an image in words."""
    keys = ("strict_cosine", "judge_cosine", "shape", *WORST_BY, "dino", "clip_i_b32", "lpips", "dreamsim")
    known = {m.key: m for m in MEASURES}
    taken = [known[key] for key in dict.fromkeys(keys) if key in known and key in r]
    return " · ".join(f"{m.title} {m.format(r[m.key])}" for m in taken)


def worst(e: Evaluation, all_cards: Sequence[Card]) -> list[Worst]:
    """The images of this encoder that score lowest, by each score; ties in the order of the images."""
    by_identity = {c.subject.identity: c for c in all_cards}
    numbers = {asked: n for n, asked in enumerate(prompts(e))}
    known = {m.key: m for m in MEASURES}

    def pair(i: int, m: Measure) -> tuple[Card, Shot]:
        card = by_identity[e.rows[i]["identity"]]
        own = shot(e, i, card.number, numbers)
        return card, own._replace(marks=f"{m.title.lower()} {short_number(e.rows[i][m.key])}")

    def worst_by(m: Measure) -> list[int]:
        rows = [i for i, r in enumerate(e.rows) if r["condition"] == OURS and m.key in r]
        return sorted(rows, key=lambda i: e.rows[i][m.key] * (1 if m.higher_is_better else -1))[:WORST]

    found = [(known[key], worst_by(known[key])) for key in WORST_BY if key in known]
    return [Worst(m, [pair(i, m) for i in rows]) for m, rows in found if rows]


def within(all_cards: Sequence[Card], count: int) -> list[Card]:
    """The first cards that have `count` pictures together at most."""
    kept: list[Card] = []
    for card in all_cards:
        if (count := count - 1 - len(card.shots)) < 0:
            break
        kept.append(card)
    return kept


def pictures(some: Iterable[Card]) -> Iterator[Image.Image]:
    """All pictures of cards."""
    for card in some:
        yield card.seen.picture
        yield from (s.picture for s in card.shots)


def cell(s: Shot) -> Cell:
    """A picture for the sheet, in red where a check fails."""
    return Cell(s.picture, " · ".join(filter(None, (s.marks, s.failures))), False if s.failures else None)


def has_photos_or_others(all_cards: Sequence[Card]) -> bool:
    """Whether anything stands beside this encoder's images."""
    return any(s.condition not in (OURS, "") for c in all_cards for s in c.shots)


def compared(card: Card, prompt_number: int) -> list[Shot]:
    """One prompt of an object in every condition, and a real photo."""
    return [s for s in card.shots if s.prompt_number == prompt_number or s.condition == REAL]
