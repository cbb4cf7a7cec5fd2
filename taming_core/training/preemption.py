"""A training that is asked to stop: it saves its state after the current step, and the same command goes on there.

Slurm, Kubernetes and spot instances send SIGTERM before they end a process; SIGUSR1 is what Slurm's `--signal` is
commonly set to, some time before the limit of a job.
"""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from taming_core.training.distributed import ProcessGroup

SIGNALS = tuple(s for s in signal.Signals if s.name in ("SIGTERM", "SIGUSR1"))  # Windows has no SIGUSR1


@dataclass
class StopRequest:
    """The signals that asked a training to stop; 0 for none."""

    received: int = 0  # by this process
    agreed: int = 0  # the one that all processes stop for, after the same step

    def is_agreed(self, processes: ProcessGroup) -> bool:
        """Whether any process got a signal; all processes must call it after the same step."""
        self.agreed = processes.max(self.received)
        return self.agreed > 0

    @property
    def exit_status(self) -> int:
        """128 and the number of the signal, as shells give it; no scheduler takes it for success."""
        return 128 + self.agreed

    def message(self, step: int) -> str:
        """What to print when the state after `step` is saved."""
        name = signal.Signals(self.agreed).name
        return f"taming: stopped by {name}; step {step} is saved. Run the same command again: it goes on from there."


@contextmanager
def stop_requests() -> Generator[StopRequest]:
    """Within it stop signals are remembered, and end nothing; a launcher may send them more than once."""
    request = StopRequest()

    def remember(number: int, _: Any) -> None:
        request.received = number

    if threading.current_thread() is not threading.main_thread():  # as in Ray Train, which sends no signals
        yield request
        return
    earlier = {number: signal.signal(number, remember) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
