"""Files in a run's folder ask for a grid or a saved state; the result is the same."""

from pathlib import Path

import pytest

from taming_core.training import requests
from taming_core.training.distributed import ProcessGroup
from taming_core.training.requests import REQUESTS, Asked, Request


@pytest.mark.parametrize("what", [(), ("sample",), ("save",), REQUESTS])
def test_each_request_is_met_once(tmp_path: Path, what: tuple[Request, ...]) -> None:
    asked = Asked(tmp_path)
    for request in what:
        requests.ask(tmp_path, request)
    assert asked.is_agreed(ProcessGroup()) == bool(what)
    assert asked.agreed == set(what)
    assert not asked.is_agreed(ProcessGroup())
    assert asked.agreed == set()
    assert list(tmp_path.iterdir()) == []
