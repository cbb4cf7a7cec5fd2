"""The report: one file, pictures first, plain words; and the grid of pictures beside it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork

from taming_core.evaluation import measures, plots, report
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.result import Evaluation
from taming_core.figures import image_grid
from taming_core.figures.image_grid import Cell
from taming_core.params.load import load_params, packaged_params
from taming_core.params.sections import EvaluateParams

SCENES, STYLES = ["on the beach", "in the snow"], ["a pencil sketch of"]


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.full((128, 128, 3), 40 * number, np.uint8))


def scored(condition: str, identity: str, asked: str, **values: Any) -> dict[str, Any]:
    kind = "style" if asked in STYLES else "photo" if condition == "real_photos" else "scene"
    row = {"condition": condition, "identity": identity, "kind": kind, "asked": asked, "shown": identity}
    return {**row, "other_photos": 1.0, **values}


def all_rows() -> list[dict[str, Any]]:
    rows = []
    for thing in ("a <b>robot</b>", "turkey"):
        for scene in SCENES:
            seen = {"cosine": 0.7, "judge_top1": 1.0, "judge_cosine": 0.7, "judge_cosine_seen": 0.8, "copying": 0.1,
                    "shape": 0.8, "shape_found": 1.0, "strict_top1": 1.0, "strict_pass": 1.0,
                    "strict_cosine": 0.65}  # fmt: skip
            rows.append(scored("ours", thing, scene, **seen, chosen=scene, scene_accuracy=1.0))
        rows.append(scored("ours", thing, STYLES[0], cosine=0.5, chosen="an oil painting of", style_accuracy=0.0))
        for condition, likeness in (("no_object", 0.02), ("another_object", -0.06)):
            wrong = {"cosine": likeness, "judge_top1": 0.0, "judge_cosine": likeness, "shape": 0.6, "shape_found": 1.0,
                     "strict_top1": 0.0, "strict_pass": 0.0, "strict_cosine": 0.1}  # fmt: skip
            rows.append(scored(condition, thing, SCENES[0], **wrong, chosen=SCENES[0], scene_accuracy=1.0))
        rows.append(
            scored("real_photos", thing, "", cosine=0.9, judge_top1=1.0, judge_cosine=0.9, shape=0.95, copying=0.0)
        )
    nothing = {"shape": 0.0, "shape_found": 0.0, "strict_top1": 0.0, "strict_pass": 0.0, "strict_cosine": 0.0}
    rows[0] |= {"judge_top1": 0.0, **nothing}
    rows[1] |= {"strict_pass": 0.0, "strict_cosine": 0.3}
    return rows


@pytest.fixture
def evaluated() -> Evaluation:
    rows = all_rows()
    base = load_params(packaged_params()).evaluate.model_dump()
    p = EvaluateParams.model_validate({**base, "scenes": SCENES, "styles": STYLES})
    identities = dict.fromkeys(r["identity"] for r in rows)
    things = [EvalSubject(name, art, art, (), None) for name, art in zip(identities, artwork(2), strict=True)]
    images = [picture(i % 6) for i in range(len(rows))]
    return Evaluation(things, rows, images, measures.summary(rows), p, {"Encoder": "mini & others"})


@pytest.fixture
def page(evaluated: Evaluation, tmp_path: Path) -> str:
    plots.write(tmp_path, evaluated.summary, evaluated.rows)
    return report.html(evaluated, tmp_path)


class Sources(HTMLParser):
    """Everything that a page would fetch, and the tags that it leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file(page: str) -> None:
    sources = Sources()
    sources.feed(page)
    assert len(sources.found) == 2 * 4 + 2 * 5 + 2  # pictures, controls, plots
    assert all(s.startswith("data:image/") for s in sources.found)
    assert sources.open == []
    assert not re.search(r"https?:|url\(|@import|<script", page)


def test_pictures_come_before_numbers(page: str) -> None:
    headings = ["Images", "Controls", "Scores", "How it was measured"]
    assert re.findall(r"<h2>(.*?)</h2>", page) == headings


def test_names_cannot_break_the_page(page: str) -> None:
    assert "<b>robot</b>" not in page
    assert "&lt;b&gt;robot&lt;/b&gt;" in page
    assert "mini &amp; others" in page


def test_each_thing_stands_beside_its_prompts(evaluated: Evaluation) -> None:
    found = report.pictures(evaluated)
    assert found.columns == ["the object", "on the beach", "in the snow", "a pencil sketch"]
    robot = found.rows[0]
    assert [cell.picture for cell in robot[1:]] == list(evaluated.images[:3])
    assert [cell.note for cell in robot] == [
        "a <b>robot</b>",
        "judge .70 · no object found · not recognised",
        "judge .70 · strict .30 · shape .80 · not accepted",
        "judge .50 · read as “an oil painting of”",
    ]
    assert [cell.good for cell in robot] == [None, False, False, False]


def test_controls_stand_side_by_side_with_a_real_photo(evaluated: Evaluation) -> None:
    found = report.controls(evaluated)
    assert found.columns == [
        "the object", "the object's tokens", "no object tokens", "another object's tokens", "real photos",
    ]  # fmt: skip
    assert [cell.note for cell in found.rows[1]] == [
        "turkey", "judge .70 · strict .65 · shape .80", "judge .02 · strict .10 · shape .60",
        "judge -.06 · strict .10 · shape .60 · tokens of turkey", "judge .90 · shape .95",
    ]  # fmt: skip


def test_the_words_say_what_the_numbers_say(evaluated: Evaluation) -> None:
    said = report.sentences(evaluated.summary)
    assert said[0] == (
        "The judge recognises the right object in 75 % (1 to 100) of the images; of real photos 100 %, "
        "with another object's tokens 0 %, without object tokens 0 %."
    )
    assert said[1] == (
        "Images are compared with photos of the object that the encoder did not see. They are more like the seen "
        "picture by 0.10 (0.10 to 0.10); of real photos 0.00: more than real photos is copying."
    )
    assert said[2] == (
        "The strict judge, which compares the cut-out object alone, accepts it as the subject in 50 % (0 to 100) of "
        "the images; with another object's tokens 0 %, without object tokens 0 %."
    )
    assert said[-1] == "The style is the requested one in 0 % (0 to 99)."


def test_it_is_said_where_only_the_seen_picture_is_there_to_compare_with(evaluated: Evaluation) -> None:
    def said(identities: set[str]) -> str:
        alone = [{**r, "other_photos": 0.0} if r["identity"] in identities else r for r in evaluated.rows]
        return report.sentences(measures.summary(alone))[1]

    assert "(in 50 % of the images; others have the seen picture alone)" in said({"turkey"})
    assert said({"turkey", "a <b>robot</b>"}).startswith(
        "Images are compared with the very picture that the encoder saw"
    )


def test_measures_that_were_not_taken_are_a_dash(evaluated: Evaluation) -> None:
    rows = {r["title"]: r["cells"] for r in report.score_rows(evaluated.summary)}
    assert rows["Right style"][1:] == [None, None, None]
    assert rows["Shape"][0] == {"value": "0.60", "interval": "0.00 to 1.00"}
    assert "Silhouette" not in rows


def test_without_controls_and_photos_there_is_still_a_report(evaluated: Evaluation, tmp_path: Path) -> None:
    places = [i for i, r in enumerate(evaluated.rows) if r["condition"] == "ours" and r["kind"] == "scene"]
    rows, images = [evaluated.rows[i] for i in places], [evaluated.images[i] for i in places]
    p = EvaluateParams.model_validate({**evaluated.params.model_dump(), "styles": []})
    few = Evaluation(evaluated.subjects, rows, images, measures.summary(rows), p, {})
    plots.write(tmp_path, few.summary, few.rows)
    assert "Controls" not in report.html(few, tmp_path)


def test_a_grid_shows_every_picture_under_its_caption() -> None:
    rows = [[Cell(picture(1), "one"), Cell(picture(2))], [Cell(None), Cell(picture(3), "wrong", good=False)]]
    sheet = np.asarray(image_grid.grid("Heading", ["left", "right"], rows, 128))
    for number in (1, 2, 3):
        assert (sheet == 40 * number).all(-1).sum() >= 128 * 128
    red = np.asarray(Image.new("RGB", (1, 1), image_grid.BAD))[0, 0]
    assert (sheet == red).all(-1).any()


def test_a_long_caption_makes_room_for_itself() -> None:
    short, long = (
        image_grid.grid("", [text], [[Cell(picture(1))]], 128) for text in ("beach", "on a very long beach " * 6)
    )
    assert long.height > short.height
    assert long.width == short.width


@pytest.mark.parametrize(("value", "short"), [(0.745, ".74"), (-0.06, "-.06"), (1.0, "1.0"), (0.0, ".00")])
def test_short_numbers(value: float, short: str) -> None:
    assert report._short_number(value) == short
