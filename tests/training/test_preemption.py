"""A training that is asked to stop ends after the step, with all of its figures, and goes on as if it had not."""

import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
import tiny
from tiny_runs import begun, state, steps

from taming_core.tables.rows import load_rows
from taming_core.training import checkpoint, loop
from taming_core.training.batches import batch_at
from taming_core.training.distributed import ProcessGroup
from taming_core.training.preemption import SIGNALS, StopRequest, stop_requests

ALONE = {"identity_weight": 0.0, "identity_network": None, "identity_max_timestep": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_rows(tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_training_after_its_step(
    number: signal.Signals, lag: int, folder: Path, tmp_path: Path
) -> None:
    p = tiny.train_params(save_every=1000, **ALONE)
    whole = begun(p, "concat")
    expected = steps(whole, p, folder, 6)

    run = begun(p, "concat")
    make = partial(batch_at, source=tiny.source(load_rows(folder, "train"), p))

    def make_and_signal(step: int) -> loop.Batch:
        if step == 2:
            os.kill(os.getpid(), number)
        return make(step)

    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_requests() as stop:
        reports = list(loop.train(run, p, make_and_signal, lag, is_stopping=partial(stop.is_agreed, ProcessGroup())))
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert run.step == 3
    assert reports == expected[:3]
    assert stop.exit_status == 128 + number
    checkpoint.save(run, tmp_path)
    again = begun(p, "concat")
    checkpoint.load(again, tmp_path)
    assert steps(again, p, folder, 6) == expected[3:]
    found, wanted = state(again), state(whole)
    assert all(value.equal(wanted[name]) for name, value in found.items())


def test_a_request_says_which_signal_and_what_to_do() -> None:
    request = StopRequest(received=signal.SIGTERM)
    assert not request.agreed
    assert request.is_agreed(ProcessGroup())
    assert request.exit_status == 143
    assert request.message(7) == (
        "taming: stopped by SIGTERM; step 7 is saved. Run the same command again: it goes on from there."
    )


def test_a_thread_trains_without_handlers() -> None:
    """Only the main one can set them."""
    agreed = []

    def train() -> None:
        with stop_requests() as stop:
            agreed.append(stop.is_agreed(ProcessGroup()))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert agreed == [False]
