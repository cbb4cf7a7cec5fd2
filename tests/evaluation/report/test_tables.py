"""The tables of the report."""

from evaluations import COSTS, evaluation, whole

from taming_core.evaluation.report import tables
from taming_core.evaluation.report.page import html
from taming_core.evaluation.report.tables import ABSENT


def test_methods_have_scores_with_intervals_verdicts_and_costs() -> None:
    found = tables.methods(evaluation(12, costs=COSTS))
    titles = [title for title, _ in found.columns]
    rows = {row[0].text: dict(zip(titles, row, strict=True)) for row in found.rows}
    assert list(rows) == ["this encoder", "Textual Inversion", "DreamBooth", "real photos"]
    strict = {condition: row["Strict likeness"] for condition, row in rows.items()}
    assert [cell.verdict for cell in strict.values()] == [0, -1, 1, 0]
    assert strict["real photos"] == ABSENT
    assert rows["this encoder"]["Right scene"].small == "71 to 100 %"
    assert rows["DreamBooth"]["Time of a new object"].text == "7 min"
    assert rows["DreamBooth"]["Memory"] == ABSENT
    assert rows["Textual Inversion"]["Size of a new object"].text == "4.1 KB"
    assert rows["real photos"]["Size of a new object"] == ABSENT


def test_one_cost_alone_is_not_shown_so_that_the_same_scores_give_the_same_page() -> None:
    alone = evaluation(2, shifts={}, costs={"ours": COSTS["ours"]})
    slower = evaluation(2, shifts={}, costs={"ours": COSTS["ours"]._replace(seconds=9.0)})
    assert html(alone) == html(slower)
    assert "Time of a new object" not in html(alone)


def test_all_measures_are_those_that_were_taken() -> None:
    rows = {row[0].text: row[1:] for row in tables.all_measures(evaluation(2)).rows}
    assert rows["Right style"][-1] == ABSENT
    assert rows["Shape"][0].text == "0.57"
    assert "Silhouette" not in rows


def test_objects_link_to_their_pictures() -> None:
    found = tables.objects(evaluation(3))
    assert [row[0].text for row in found.rows] == ["robot 0", "robot 1", "robot 2"]
    assert found.rows[2][0].link == "#object-2"
    strict = [title for title, _ in found.columns].index("Strict likeness")
    assert [row[strict].value for row in found.rows] == [0.555, 0.575, 0.595]


def test_strata_stand_for_each_value_and_condition() -> None:
    ((name, found),) = tables.strata(whole())
    assert name == "prompt kind"
    assert [(row[0].text, row[1].text) for row in found.rows] == [
        (kind, by)
        for kind in ("scene", "style")
        for by in ("this encoder", "Textual Inversion", "DreamBooth", "real photos")
    ]  # fmt: skip


def test_the_check_of_the_judges_is_a_table() -> None:
    found = tables.judge_check(whole())
    assert found is not None
    assert [title for title, _ in found.columns] == [
        "Judge", "another photo of the object", "part swapped",
    ]  # fmt: skip
    assert [(cell.text, cell.small) for cell in found.rows[0]] == [
        ("strict judge", ""), ("0.93", "0.88 to 0.97"), ("0.71", ""),
    ]  # fmt: skip
    assert tables.judge_check(evaluation(1)) is None
