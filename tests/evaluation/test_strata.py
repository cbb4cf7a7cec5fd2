"""Scores by class group, difficulty and kind of prompt: which images count where, and when a difference is said."""

import doctest
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from small_rows import artwork

from taming_core.evaluation import strata
from taming_core.evaluation.protocol import EvalSubject


def scored(identity: str, noun: str | None, difficulty: float, likeness: float, **other: Any) -> dict[str, Any]:
    row = {"condition": "ours", "identity": identity, "class": noun, "difficulty": difficulty, "kind": "scene"}
    return {**row, "other_photos": 1.0, "judge_cosine": likeness, **other}


def rows(count: int = 9) -> list[dict[str, Any]]:
    """Objects that are the harder the higher their number; every third is a dog."""
    found = []
    for i in range(count):
        noun = "dog" if i % 3 == 0 else "truck"
        found += [
            scored(f"o{i}", noun, 1.0 + i, 0.9 - 0.1 * i + 0.01 * n, kind=k) for n, k in enumerate(("scene", "action"))
        ]
        found.append(scored(f"o{i}", noun, 1.0 + i, 0.95, condition="real_photos", kind="photo"))
    return found


def cut_out(points: list[tuple[int, int]]) -> Image.Image:
    image = Image.new("RGBA", (128, 128))
    ImageDraw.Draw(image).polygon(points, fill=(200, 80, 40, 255))
    return image


def test_doctests() -> None:
    assert doctest.testmod(strata).failed == 0


def test_every_stratum_has_the_summary_of_its_images() -> None:
    found = strata.strata(rows())
    assert {name: list(of) for name, of in found.items()} == {
        "class group": ["animal", "vehicle"], "difficulty": ["easy", "medium", "hard"],
        "prompt kind": ["scene", "action"],
    }  # fmt: skip
    animals = found["class group"]["animal"]["ours"]["judge_cosine"]
    assert (animals.count, animals.mean) == (6, pytest.approx(0.605))
    assert found["difficulty"]["easy"]["ours"]["judge_cosine"].mean == pytest.approx(0.805)
    assert found["difficulty"]["hard"]["real_photos"]["judge_cosine"].mean == pytest.approx(0.95)
    assert "real_photos" not in found["prompt kind"]["scene"]


def test_a_stratum_with_one_value_is_no_stratum() -> None:
    assert strata.strata([r | {"class": None, "kind": "scene", "difficulty": 1.0} for r in rows()]) == {}
    assert "difficulty" not in strata.strata(rows(5))
    assert "difficulty" in strata.strata(rows(6))


def test_equal_difficulties_are_of_one_level() -> None:
    levels = strata.levels({f"o{i}": value for i, value in enumerate([1, 1, 1, 1, 2, 3])})
    assert (
        list(levels.values()) == ["easy", "easy", "easy", "easy", "medium", "medium"] or len(set(levels.values())) > 1
    )
    assert len({levels[f"o{i}"] for i in range(4)}) == 1
    assert set(strata.levels(dict.fromkeys("abcdef", 1.0)).values()) == {"easy"}
    thirds = strata.levels({str(i): float(i) for i in range(24)})
    assert [list(thirds.values()).count(level) for level in strata.LEVELS] == [8, 8, 8]


def test_an_intricate_silhouette_is_harder_than_a_plain_one() -> None:
    square = cut_out([(30, 30), (98, 30), (98, 98), (30, 98)])
    star = cut_out(
        [(64 + int(r * np.cos(a)), 64 + int(r * np.sin(a)))
         for a, r in zip(np.linspace(0, 2 * np.pi, 16, endpoint=False), [56, 18] * 8, strict=True)]
    )  # fmt: skip
    assert 0.8 < strata.difficulty(square) < 1.5 < strata.difficulty(star)
    small = square.resize((64, 64), Image.Resampling.NEAREST)
    assert strata.difficulty(small) == pytest.approx(strata.difficulty(square), rel=0.05)


def test_rows_name_the_class_and_the_difficulty_of_their_object() -> None:
    art = artwork(1)[0]
    row = {"condition": "ours", "identity": "robot"}
    found = strata.add_strata([row], [EvalSubject("robot", art, art, (), "toy")])
    assert found == [row | {"class": "toy", "difficulty": round(strata.difficulty(art), 4)}]


def test_a_line_is_printed_where_intervals_do_not_overlap_alone() -> None:
    assert strata.sentences(strata.strata(rows())) == [
        "by difficulty: likeness to the object 0.81 of easy, 0.20 of hard"
    ]
    alike = [r | {"judge_cosine": 0.5 + 0.1 * (i % 4)} for i, r in enumerate(rows())]
    assert strata.sentences(strata.strata(alike)) == []


def test_of_equal_strata_few_are_said_to_differ() -> None:
    rng, said = np.random.default_rng(0), 0
    for _ in range(100):
        likeness = rng.normal(0.6, 0.1, 12)
        drawn = [scored(f"o{i}", "dog", float(i), float(likeness[i])) for i in range(12)]
        said += len(strata.sentences(strata.strata(drawn)))
    assert said <= 5


def test_the_file_has_means_and_intervals_and_the_table_the_means() -> None:
    found = strata.strata(rows())
    of = strata.content(found)["difficulty"]["easy"]["ours"]["judge_cosine"]
    assert set(of) == {"mean", "low", "high", "count"}
    assert of["low"] <= of["mean"] <= of["high"]
    assert {"stratum": "difficulty", "value": "easy", "judge_cosine": of["mean"]} in strata.table(found)
