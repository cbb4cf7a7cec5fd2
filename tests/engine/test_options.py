"""Options of engines are checked before anything is loaded."""

import pytest

from taming_core.engine import run
from taming_core.errors import TamingError
from taming_core.params.engine import EngineOptions


def test_an_option_of_the_other_engine_is_an_error() -> None:
    with pytest.raises(TamingError, match=r"^There is no engine spark\. Use --engine local or ray\.$"):
        EngineOptions("spark")
    with pytest.raises(TamingError, match=r"^--actors has no effect on --engine local\. Leave it out, or use"):
        EngineOptions(actors=2)


@pytest.mark.parametrize(("sources", "cores", "workers"), [(999, 64, 0), (1000, 1, 1), (1000, 8, 7), (10**6, 99, 16)])
def test_workers_are_by_photos_and_cores(
    monkeypatch: pytest.MonkeyPatch, sources: int, cores: int, workers: int
) -> None:
    monkeypatch.setattr(run, "cores", lambda: cores)
    assert run.automatic_workers(sources) == workers
