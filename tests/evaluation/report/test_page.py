"""The page: one file, pictures first, plain words, names as text, colours that can be read."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluations import HOSTILE, evaluation, image_row, name, whole

from taming_core.evaluation import measures
from taming_core.evaluation.report import page
from taming_core.evaluation.report.page import html, tiles
from taming_core.evaluation.result import Evaluation

VOID = ("img", "meta", "link", "input")
CSS = Path(page.__file__).with_suffix(".css").read_text("utf-8")


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the tags that it leaves open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str, key: str) -> list[str]:
        return [attrs[key] or "" for name, attrs in self.elements if name == tag and key in attrs]


@pytest.fixture(scope="module")
def text() -> str:
    return html(whole())


@pytest.fixture(scope="module")
def parsed(text: str) -> Parsed:
    return Parsed(text)


def test_the_page_needs_no_other_file(text: str, parsed: Parsed) -> None:
    assert parsed.open == []
    assert all(source.startswith("data:image/webp;base64,") for source in parsed.all("img", "src"))
    assert all(
        link.startswith(("#", "images/", "data:,")) for link in [*parsed.all("a", "href"), *parsed.all("link", "href")]
    )
    assert not re.search(r"https?://|url\(|@import| on[a-z]+=", text)
    assert "default-src 'none'" in text


def test_pictures_come_before_numbers(text: str) -> None:
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == [
        "Pictures", "Scores", "Fidelity, text and costs", "Objects", "Strata", "What the judges can see",
        "Worst images", "How it was measured",
    ]  # fmt: skip


def test_every_link_of_the_page_has_its_place(parsed: Parsed) -> None:
    ids = [attrs["id"] for _, attrs in parsed.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in parsed.all("a", "href") if link.startswith("#")} <= set(ids)
    labels = [value for key in ("aria-labelledby", "for") for tag in ("section", "article", "label")
              for value in parsed.all(tag, key)]  # fmt: skip
    assert set(labels) <= set(ids)


def test_every_picture_and_chart_says_what_it_shows(parsed: Parsed) -> None:
    shown = [attrs for tag, attrs in parsed.elements if tag == "img" and attrs.get("id") != "picture"]
    assert all(attrs["alt"] for attrs in shown)
    assert "robot 0: this encoder, on the beach" in parsed.all("img", "alt")
    charts = [attrs for tag, attrs in parsed.elements if tag == "svg" and "aria-hidden" not in attrs]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)


def test_hostile_names_stay_text() -> None:
    text = html(evaluation(len(HOSTILE), hostile=True))
    names = [attrs for tag, attrs in Parsed(text).elements if tag == "h3"]
    assert [attrs["title"] for attrs in names] == [name(n, hostile=True) for n in range(len(HOSTILE))]
    assert text.count("<script") == 1
    assert 'onerror="' not in text


def test_what_was_not_measured_has_no_section() -> None:
    text = html(evaluation(2, shifts={}))
    for absent in ("Strata", "What the judges can see", "Fidelity, text and costs", "<li>"):
        assert absent not in text.split("<h2", 1)[1].split('id="worst"')[0]


def test_an_evaluation_without_photos_and_other_conditions_has_a_page() -> None:
    row = image_row("ours", "robot 0", "on the beach", 0.7)
    e = evaluation(1, ("on the beach",), {})
    alone = Evaluation(e.subjects, [row], e.images[:1], measures.summary([row]), e.params, {})
    assert 'id="methods"' not in html(alone)


def test_the_tiles_stand_beside_real_photos_and_the_best_baseline() -> None:
    found = tiles(whole())
    assert len(found) == 5
    assert found[0].others == "real photos 100\u00a0%, DreamBooth 100\u00a0%"
    assert (found[4].value, found[4].name) == ("0.02 s", "Time of a new object")
    assert found[4].others == "Textual Inversion 3 min, DreamBooth 7 min"


def test_without_baselines_the_tiles_stand_beside_the_controls() -> None:
    found = tiles(evaluation(2, shifts={"no_object": -0.5}))
    assert found[0].others == "real photos 100\u00a0%, no object tokens 0\u00a0%"


def test_the_protocol_and_the_settings_are_named(text: str) -> None:
    assert "protocol “mini” a1b2c3d4." in text
    for setting in ("<dt>sampling: steps</dt><dd>9</dd>", "<dt>sampling: guidance_object</dt><dd>3.5</dd>"):
        assert setting in text


def test_the_page_says_of_how_many_objects_it_has_pictures() -> None:
    text = html(evaluation(40), budget=6_000)
    assert (shown := len(re.findall("<article", text))) < 40
    assert f"Pictures of {shown} of 40 objects" in text
    assert text.count('<th scope="row"><a href="#object-') == 40


def sentences(without_photos: set[str]) -> list[str]:
    rows = [{**r, "other_photos": 0.0} if r["identity"] in without_photos else r for r in evaluation(2).rows]
    return page.sentences(measures.summary(rows))


def test_the_words_say_what_the_numbers_say() -> None:
    found = sentences(set())
    assert found[0].startswith("The judge recognises the right object in 100 % (1 to 100) of the images; of real")
    assert found[1] == (
        "Images are compared with photos of the object that the encoder did not see. They are more like the seen "
        "picture by 0.10 (0.10 to 0.10); of real photos 0.00: more than real photos is copying."
    )
    assert found[-1] == "The style is the requested one in 100 % (1 to 100)."


def test_it_is_said_where_only_the_seen_picture_is_there_to_compare_with() -> None:
    assert "(in 50 % of the images; others have the seen picture alone)" in sentences({"robot 0"})[1]
    assert sentences({"robot 0", "robot 1"})[1].startswith("Images are compared with the very picture that the encoder")


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    light, dark = CSS.split("@media (prefers-color-scheme: dark)")
    colours = variables(light) if scheme == "light" else variables(dark.split("}\n}")[0])
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ink in ("ink", "soft", "good", "bad", "link"):
        for paper in ("paper", "card"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast(colours["focus"], colours["paper"]) >= 3


def test_motion_is_reduced_where_it_is_asked_for() -> None:
    assert "@media (prefers-reduced-motion: reduce)" in CSS
    assert "animation" not in CSS
