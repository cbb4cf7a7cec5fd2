"""Locks in a store: they name who holds them, and a crash leaves nothing behind for long."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from upath import UPath

from taming_core.errors import TamingError
from taming_core.locks import exclusive, lock_object, this_process
from taming_core.storage import lease

HOLDS = """
import sys, time
from upath import UPath
from taming_core.locks import exclusive
from taming_core.storage import lease
lease.RENEWAL = 0.2
with exclusive(UPath(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL", 0.2)
    monkeypatch.setattr(lease, "LEASE", 6.0)
    monkeypatch.setattr(lease, "LOOK", 0.1)


@pytest.fixture
def other(bucket: UPath) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the lock of the output."""
    command = [sys.executable, "-c", HOLDS, str(bucket / "rows")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_names_the_first_which_goes_on(bucket: UPath, other: subprocess.Popen[str]) -> None:
    message = rf"rows is being written by `-c .*` \(process {other.pid} on .*\)\. Wait until that has ended"
    with pytest.raises(TamingError, match=message), exclusive(bucket / "rows"):
        pass
    assert other.poll() is None
    assert lease.read(lock_object(bucket / "rows")) is not None


def test_a_crash_on_this_machine_is_noticed_at_once(bucket: UPath, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    start = time.monotonic()
    with exclusive(bucket / "rows"):
        assert time.monotonic() - start < lease.LEASE
    assert lease.read(lock_object(bucket / "rows")) is None


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_the_lock_of_another_machine_ends_without_renewals_whatever_the_clocks_say(
    bucket: UPath, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    content = {**this_process(), "machine": "another", "token": "dead", "renewals": 3}
    lock = lock_object(bucket / "rows")
    lock.write_bytes(json.dumps(content).encode())
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    start = time.monotonic()
    with exclusive(bucket / "rows"):
        assert time.monotonic() - start >= lease.LEASE


def test_who_lost_the_lock_says_so(bucket: UPath) -> None:
    def work() -> None:
        with exclusive(bucket / "rows"):
            lock_object(bucket / "rows").write_bytes(json.dumps({"token": "of another"}).encode())
            time.sleep(3)

    with pytest.raises(TamingError, match=r"was taken by another process while this one could not renew it\. Run"):
        work()
    assert lease.read(lock_object(bucket / "rows")) == {"token": "of another"}


def test_a_lock_outlives_a_block_that_fails_by_nothing(bucket: UPath) -> None:
    with pytest.raises(KeyError), exclusive(bucket / "rows"):
        raise KeyError
    assert lease.read(lock_object(bucket / "rows")) is None
