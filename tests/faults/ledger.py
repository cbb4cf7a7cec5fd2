"""What became of every fault that was injected, for the table of docs/explanation/faults.md."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

LEDGER = "TAMING_FAULTS"  # environment variable: the file to append to; without it nothing is written


def enter(kind: str, stage: str, problems: Sequence[str], lost: int) -> None:
    """Add a trial.

    Args:
        kind: of the fault.
        stage: that met it.
        problems: what was not as it should be; without any, the stage has survived.
        lost: rows of the undisturbed result that are not in this one.
    """
    if path := os.environ.get(LEDGER):
        with Path(path).open("a", encoding="utf-8") as file:
            print(json.dumps({"kind": kind, "stage": stage, "problems": problems, "lost": lost}), file=file)
