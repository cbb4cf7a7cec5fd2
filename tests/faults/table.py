"""Write the table of docs/explanation/faults.md: inject every fault, and count what survived.

Example: python tests/faults/table.py
Example: python tests/faults/table.py --ledger faults.jsonl
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults.ledger import LEDGER  # noqa: E402

PAGE, MARKS = ROOT / "docs/explanation/faults.md", ("<!-- faults -->\n", "<!-- end of faults -->\n")
HEAD = ("fault", "stages", "times tried", "survived", "rows lost")
STAGES = ("detect", "caption", "materialize", "train", "eval")  # in their order

Trial = dict[str, Any]


def main() -> None:
    """Run the suite, unless a ledger is given, and replace the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=Path, help="What a run with TAMING_FAULTS=FILE has written.")
    ledger = parser.parse_args().ledger
    with tempfile.TemporaryDirectory() as folder:
        if ledger is None:
            ledger = Path(folder, "faults.jsonl")
            ledger.touch()
            suite = ["tests/faults", "-m", "slow or exhaustive", "-p", "no:cacheprovider"]
            subprocess.run(
                [sys.executable, "-m", "pytest", *suite], cwd=ROOT, env={**os.environ, LEDGER: str(ledger)}, check=False
            )
        trials = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    from pipelines.memory_table import write  # imports torch

    write(PAGE, MARKS, HEAD, rows(trials))


def rows(trials: Sequence[Trial]) -> list[list[str]]:
    """A row per kind of fault, and one of all."""
    by_kind: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        by_kind[trial["kind"]].append(trial)
    return [row(kind, by_kind[kind]) for kind in sorted(by_kind)] + [row("**all**", trials)]


def row(kind: str, trials: Sequence[Trial]) -> list[str]:
    """The figures of one kind.

    >>> row("disk full", [{"stage": "eval", "problems": p, "lost": len(p)} for p in ([], ["it differs"])])
    ['disk full', 'eval', '2', '1', '1']
    """
    met = {trial["stage"] for trial in trials}
    stages = ", ".join(stage for stage in STAGES if stage in met) if met < set(STAGES) else "all five"
    survived, lost = sum(not trial["problems"] for trial in trials), sum(trial["lost"] for trial in trials)
    return [kind, stages, str(len(trials)), str(survived), str(lost)]


if __name__ == "__main__":
    main()
