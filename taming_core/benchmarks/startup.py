"""How long commands take to start: whole processes, in turns with the bare import of what all of them need."""

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
# Commands take the bar of their first batch from `progress` when it begins; here that ends the process.
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
class Start:
    """What one command takes."""

    command: str
    until: str
    seconds: float  # median
    of_import: float  # times the bare import
    slowest: float  # seconds


def commands(folder: Path) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """By name: until when it is measured, the code of the process, and its arguments."""
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


def measure(folder: Path, rounds: int, names: Sequence[str] | None = None) -> list[Start]:
    """The commands in turns, with the embedded default in an empty folder; the first round, not counted, warms up.

    Raises:
        TamingError: one of them fails.
    """
    for words in PREPARATION:
        seconds(WHOLE, words, folder)
    todo = {name: c for name, c in commands(folder).items() if names is None or name in (*names, "import")}
    found: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(rounds + 1):
        for name, (_, code, words) in todo.items():
            taken = seconds(code, words, folder)
            if number:
                found[name].append(taken)
    bare = median(found["import"])
    return [
        Start(name, todo[name][0], median(taken), median(taken) / bare, max(taken)) for name, taken in found.items()
    ]  # fmt: skip


def seconds(code: str, words: Sequence[str], folder: Path) -> float:
    """Of a whole process that runs the code; its output is not shown.

    Raises:
        TamingError: it fails.
    """
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, *words]
    # Whoever measures in a checkout measures that checkout, wherever the process runs.
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise TamingError(f"taming {' '.join(words[:1])} failed: {' '.join(said)} Run it by itself to see why.")
    return time.perf_counter() - begin
