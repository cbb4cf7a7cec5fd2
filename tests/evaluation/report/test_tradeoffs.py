"""What is plotted: the same objects and prompts for every point."""

import csv
from pathlib import Path

import pytest
from evaluations import COSTS, evaluation, image_row, name, whole

from taming_core.evaluation import plots
from taming_core.evaluation.measures import MEASURES
from taming_core.evaluation.report import tradeoffs
from taming_core.evaluation.report.charts import axis

MEASURE = {m.key: m for m in MEASURES}
STRICT, SCENE = MEASURE["strict_cosine"], MEASURE["scene_accuracy"]


def test_guidance_is_a_line_of_this_encoder_and_baselines_are_points() -> None:
    found = tradeoffs.pareto(whole(), STRICT, SCENE)
    assert [(s.condition, s.setting) for s in found] == [
        ("ours", 1.5), ("ours", 3.5), ("ours", 6.0), ("textual_inversion", None), ("dreambooth", None),
    ]  # fmt: skip
    fidelity = [s.fidelity.mean for s in found]
    assert fidelity[:3] == sorted(fidelity[:3])


def test_points_are_compared_on_the_objects_that_all_have() -> None:
    more = [image_row("guidance_6", name(0), "on the beach", 0.9, guidance=6.0)]
    found = tradeoffs.pareto(evaluation(4, more=more), STRICT, SCENE)
    assert {s.condition: s.fidelity.count for s in found} == {"ours": 1, "textual_inversion": 1, "dreambooth": 1}


def test_costs_are_those_that_were_measured() -> None:
    found = tradeoffs.cost(evaluation(4, costs=COSTS), STRICT)
    assert [(s.condition, s.x) for s in found] == [("ours", 0.02), ("textual_inversion", 180), ("dreambooth", 400)]
    assert tradeoffs.cost(evaluation(4), STRICT) == []


def test_a_curve_ends_with_the_whole_training() -> None:
    e = whole()
    rows = [{**r, "steps": 400} if r["condition"] == "dreambooth" else r for r in e.rows]
    found = tradeoffs.steps(type(e)(**{**vars(e), "rows": rows}), STRICT)
    assert [(s.condition, s.x) for s in found] == [("dreambooth", 100), ("dreambooth", 200), ("dreambooth", 400)]
    assert [s.fidelity.mean for s in found] == sorted(s.fidelity.mean for s in found)


def test_every_chart_is_drawn_where_there_is_something_to_compare() -> None:
    assert [str(chart).count('class="mark"') for chart in tradeoffs.charts(whole())] == [5, 3, 2]
    assert tradeoffs.charts(evaluation(2, shifts={})) == []


def test_an_axis_holds_its_values_and_round_ticks() -> None:
    plain, log = axis([0.42, 0.58], 0, 100), axis([0.02, 400], 0, 100, log=True)
    assert 0 < plain.at(0.42) < plain.at(0.58) < 100
    assert plain.ticks() == pytest.approx([0.45, 0.5, 0.55])
    assert log.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert log.at(1) - log.at(0.1) == pytest.approx(log.at(100) - log.at(10), abs=0.2)
    assert plain.at(9) == 100


def test_dvc_can_plot_the_same_points(tmp_path: Path) -> None:
    plots.write(tmp_path, whole())

    def table(file: str) -> list[dict[str, str]]:
        with (tmp_path / file).open(encoding="utf-8") as opened:
            return list(csv.DictReader(opened))

    assert [(r["condition"], r["guidance"]) for r in table("pareto.csv")][:4] == [
        ("ours", "1.5"), ("ours", "3.5"), ("ours", "6.0"), ("textual_inversion", ""),
    ]  # fmt: skip
    assert [float(r["seconds"]) for r in table("cost.csv")] == [0.02, 180, 400]
    assert (tmp_path / "per_object.png").is_file()
