"""The measurement of the data stages on a few photos: what it says, not how fast this machine is."""

import json
from pathlib import Path

import psutil
import pytest

from pipelines.scale import estimate, photos, processes, report, steps
from pipelines.scale.__main__ import main
from pipelines.scale.processes import Watched
from pipelines.scale.steps import Measured, lost_seconds


def watched(shards: tuple[float, ...], seconds: float, killed: bool = False) -> Watched:
    return Watched(seconds, 1.0, 900.0, 700.0, 2, shards, killed, 0)


def test_a_kill_loses_the_unfinished_shard_and_the_second_start() -> None:
    first, second = watched((10.0, 12.0, 14.0), 15.5, True), watched((0, 0, 0, 9.0, 11.0), 20.0)
    assert first.interval == second.interval == 2
    assert lost_seconds(first, second) == pytest.approx(1.5 + 9 - 2)


def test_a_second_run_that_made_no_shard_is_lost_as_a_whole() -> None:
    assert lost_seconds(watched((4.0, 5.0), 5.5, True), watched((0, 0), 8.0)) == pytest.approx(0.5 + 8 - 1)


def test_memory_is_that_of_all_processes_of_the_session() -> None:
    mine = psutil.Process().pid
    assert processes.proportional_set_size(mine) == pytest.approx(psutil.Process().memory_full_info().pss / 2**20, 0.1)
    assert processes.proportional_set_size(2**22 + 1) == 0


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(processes.TamingError, match="taming detect failed: taming: absent is not a folder"):
        processes.run(("detect", "--in", "absent"), tmp_path)


def test_results_say_what_grows_and_what_differs() -> None:
    def of(count: int, killed: bool, peak: float, content: str) -> Measured:
        lost = 3.0 if killed else None
        return Measured("detect", count, killed, 10.0, count / 10, None, None, peak, 700, 2, lost, 0, 1, content,
                        {"kept": 5, "no object": 1})  # fmt: skip

    text = report.markdown([of(10, False, 800, "a"), of(10, True, 810, "b"), of(100, True, 891, "c")])
    assert "detect: the peak memory of 100 photos is that of 10 +10.0%." in text
    assert "detect of 10 photos, whole and killed: DIFFERENT bytes." in text
    assert "detect of 100 photos: 5 kept, 1 no object." in text


@pytest.mark.slow
def test_the_stages_are_measured_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in steps.STAGES:
        monkeypatch.setitem(steps.CHANGES[stage], "shard_size", 1)
    monkeypatch.setattr(photos, "EVERY", 5)
    monkeypatch.setattr(processes, "EVERY", 0.01)  # twenty photos are done in less than half a second
    main(tmp_path, [20], undisturbed=20, only=None, workers=None)
    found = [Measured(**one) for one in json.loads((tmp_path / "results.json").read_text())]
    assert [(m.stage, m.killed) for m in found] == [(s, k) for k in (False, True) for s in steps.STAGES]
    for stage in steps.STAGES:
        whole, killed = (m for m in found if m.stage == stage)
        assert whole.content == killed.content
        assert whole.reasons == killed.reasons
        assert killed.lost_seconds is not None
        assert killed.left_processes == 0
        assert whole.peak_mib >= whole.peak_main_mib > 50
    assert {"copy of another photo", "unreadable", "empty file", "not an image"} <= set(found[0].reasons)
    text = (tmp_path / "results.md").read_text()
    main(tmp_path, [20], undisturbed=20, only=None, workers=None)  # what is measured stays
    assert (tmp_path / "results.md").read_text() == text


def test_the_tables_of_the_page_are_those_of_the_script() -> None:
    text = estimate.PAGE.read_text(encoding="utf-8")
    assert estimate.page(text, estimate.costs()) == text, "run `python -m pipelines.scale.estimate`"


def test_every_cost_says_where_it_is_from() -> None:
    costs = json.loads((estimate.HERE / "costs.json").read_text(encoding="utf-8"))
    assert {cost["from"] for cost in costs.values()} == {"measured", "counted", "cited", "assumed"}
    assert all(cost["value"] > 0 and cost["what"] and cost["source"] for cost in costs.values())


COSTS = {
    "detector_tflop": 1.0, "segmenter_tflop": 4.0, "peak_tflops": 100.0, "share_of_peak": 0.5, "cores": 10.0,
    "masks_seconds": 0.1, "preprocess_seconds": 0.01, "decode_seconds": 0.02, "crop_seconds": 0.08,
    "get_seconds": 0.1, "get_limit": 100.0, "object_bytes": 1000.0, "caption_bytes": 100.0, "row_bytes": 10000.0,
    "write_rate": 1e6, "listing_seconds": 0.001,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "gpus", "place", "per_second", "limit"),
    [
        ("detect", 1, "disk", 5, "GPU"),
        ("detect", 8, "S3", 40, "GPU"),
        ("detect", 64, "S3", 100, "reads from one prefix"),
        ("materialize", 1, "disk", 100, "workers"),
        ("materialize", 1, "S3", 50, "workers"),
    ],
)
def test_the_slowest_part_limits_a_stage(stage: str, gpus: int, place: str, per_second: int, limit: str) -> None:
    found = estimate.rate(stage, gpus, place, COSTS)
    assert (found.per_second, found.limit) == (pytest.approx(per_second), limit)


def test_hours_of_a_stage_are_those_of_listing_computing_and_joining() -> None:
    found = estimate.stage_hours("detect", 1, "disk", 1_000_000, COSTS)
    assert found * 3600 == pytest.approx(1_000 + 200_000 + 1_000)
