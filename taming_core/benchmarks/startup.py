"""Start-up times of commands: whole processes, in turns with the bare import of the libraries that all of them need."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from taming_core.errors import TamingError

BARE = "import torch; from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel"
WHOLE = "from stages.cli import main; main()"
# Commands open a progress bar at their first batch; in this program that ends the process.
TO_FIRST_BATCH = """
from taming_core import progress
def end(*_, **__):
    raise SystemExit
progress.track = progress.track_to = end
from stages.cli import main
main()
"""
PREPARATION = (
    ("world", "--split", "train", "--photos", "48", "--truth", ".", "--out", "raw"),
    ("world", "--split", "train", "--photos", "8", "--regularization", "--out", "regularization"),
    ("materialize", "--in", "raw", "--objects", "objects.parquet", "--captions", "captions.parquet",
     "--regularization", "regularization", "--out", "rows"),
)  # fmt: skip
NAMES = ("generate", "doctor", "detect", "caption", "train", "eval")
PROMPT = "a photo of a <object> on the beach"


@dataclass(frozen=True)
class StartTime:
    """The start-up time of one command."""

    command: str
    until: str
    seconds: float  # median
    of_import: float  # as a multiple of the bare import
    slowest: float  # seconds


def commands(folder: Path) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """By name: the end of the measurement, the code of the process, and its arguments."""
    photo = str(next((folder / "raw").glob("*/*.jpg")))
    rows, raw = str(folder / "rows"), str(folder / "raw")
    drawing = ("generate", "--encoder", "mini", "--object", photo, "--prompt", PROMPT, "--out", "images")
    return {
        "import": ("end", BARE, ()),
        "generate": ("end: one image", WHOLE, drawing),
        "doctor": ("end", WHOLE, ("doctor",)),
        "detect": ("first batch", TO_FIRST_BATCH, ("detect", "--in", raw, "--out", "o.parquet")),
        "caption": ("first batch", TO_FIRST_BATCH, ("caption", "--in", raw, "--out", "c.parquet")),
        "train": ("first batch", TO_FIRST_BATCH, ("train", "--in", rows, "--out", "encoder")),
        "eval": ("first batch", TO_FIRST_BATCH, ("eval", "--encoder", "mini", "--in", rows, "--out", "evaluation")),
    }


def measure(folder: Path, rounds: int, names: Sequence[str] | None = None) -> list[StartTime]:
    """Measure the commands in turns, with the default params in an empty folder; the first round is a warm-up.

    Raises:
        TamingError: one of them fails.
    """
    for words in PREPARATION:
        run_seconds(WHOLE, words, folder)
    selected = {name: c for name, c in commands(folder).items() if names is None or name in (*names, "import")}
    times: dict[str, list[float]] = {name: [] for name in selected}
    for number in range(rounds + 1):
        for name, (_, code, words) in selected.items():
            elapsed = run_seconds(code, words, folder)
            if number:
                times[name].append(elapsed)
    bare = median(times["import"])
    return [
        StartTime(name, selected[name][0], median(s), median(s) / bare, max(s)) for name, s in times.items()
    ]  # fmt: skip


def run_seconds(code: str, words: Sequence[str], folder: Path) -> float:
    """Seconds of a whole process that runs the code; its output is not shown.

    Raises:
        TamingError: it fails.
    """
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, *words]
    # The process imports this package, wherever it runs.
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise TamingError(f"taming {' '.join(words[:1])} failed: {' '.join(output)} Run it by itself to see why.")
    return time.perf_counter() - begin
