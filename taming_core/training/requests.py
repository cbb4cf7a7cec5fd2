"""What a person asks of a training under way: a validation grid or a saved state now, by a file in its run's folder.

After each step the main process looks for the files, and removes those that it does; results do not change.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from taming_core.files import write_text

Request = Literal["sample", "save"]
REQUESTS: tuple[Request, ...] = ("sample", "save")


def request_file(run: Path, what: Request) -> Path:
    """The file in the folder of a run that asks for something."""
    return run / f"{what}-now"


def ask(run: Path, what: Request) -> None:
    """Ask the training of a run for a grid or a saved state after its current step."""
    write_text(request_file(run, what), "")


@runtime_checkable
class Processes(Protocol):
    """What is needed of a `ProcessGroup`; importing it takes seconds, and to ask needs none."""

    @property
    def is_main(self) -> bool: ...
    def max(self, value: int) -> int: ...


@dataclass
class Asked:
    """What was asked for when the last step ended."""

    run: Path
    agreed: frozenset[Request] = frozenset()

    def is_agreed(self, processes: Processes) -> bool:
        """Whether anything is asked for; all processes must call it after the same step."""
        found: list[Request] = [
            what for what in REQUESTS if processes.is_main and request_file(self.run, what).exists()
        ]
        bits = processes.max(sum(1 << REQUESTS.index(what) for what in found))
        self.agreed = frozenset(what for i, what in enumerate(REQUESTS) if bits >> i & 1)
        for what in found:
            request_file(self.run, what).unlink(missing_ok=True)
        return bits > 0
