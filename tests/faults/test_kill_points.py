"""A stage that is killed anywhere ends, when the same command runs again, with the bytes of an undisturbed run."""

from collections.abc import Callable

import pytest
from faults.projects import COMMANDS
from faults.stage_runs import StageRun, kill_and_repeat, kills

RunOf = Callable[[str], StageRun]
SAMPLE = {"detect": 3, "caption": 1, "materialize": 5, "train": 4, "eval": 1}  # kills of the quick suite
ALL = 200  # at least so many kills of all stages


def test_a_stage_that_is_killed_now_and_then_loses_nothing(stage: str, run_of: RunOf) -> None:
    run, count = run_of(stage), SAMPLE[stage]
    every = kills(run)
    some = [every[(2 * i + 1) * len(every) // (2 * count)] for i in range(count)]
    assert [problem for kill in some for problem in kill_and_repeat(run, *kill)] == []


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_a_stage_that_is_killed_anywhere_loses_nothing(stage: str, run_of: RunOf) -> None:
    run = run_of(stage)
    assert [problem for kill in kills(run) for problem in kill_and_repeat(run, *kill)] == []


@pytest.mark.exhaustive
def test_there_are_hundreds_of_places_to_kill(run_of: RunOf) -> None:
    assert sum(len(kills(run_of(stage))) for stage in COMMANDS) >= ALL
