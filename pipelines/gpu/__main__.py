"""Verify training on one GPU, and measure its speed, within 12 minutes and without a download.

Example:  python -m pipelines.gpu --out out/gpu
"""

import signal
import time
from collections.abc import Callable, Generator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from pipelines.gpu import benchmarks, checks, report
from pipelines.gpu.checks import Scale
from taming_core.errors import TamingError
from taming_core.fingerprints import versions
from taming_core.weights.device import pick_device

FULL, SMALL = Scale(128, 4, 6, 12, "inductor"), Scale(64, 1, 2, 1, "eager")


class OutOfTime(Exception):
    """The time budget is spent."""


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder for results.json and results.md.")] = Path("out/gpu"),
    device: Annotated[str, typer.Option("--device", help="cuda, cuda:1, or cpu for a trial.")] = "cuda",
    minutes: Annotated[float, typer.Option("--minutes", help="After these the run ends with what it has.")] = 12,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes: whether everything runs.")] = False,
) -> None:
    """Run the checks, then the benchmarks, and write the results after each."""
    where, out, start = pick_device(device), out.resolve(), time.perf_counter()
    results: dict[str, Any] = {"device": device_name(where), "versions": versions(), "checks": [], "speeds": [],
                               "left_out": {}}  # fmt: skip
    cases = benchmarks.SMOKE if smoke else benchmarks.CASES
    side, steps, rounds = (64, 1, 1) if smoke else (None, 3, 3)
    tasks: dict[str, Callable[[], None]] = {
        **{name: lambda n=name: check(n, where, SMALL if smoke else FULL, results) for name in checks.CHECKS},
        **{c.name: lambda c=c: results["speeds"].extend(benchmarks.measure(c, where, side, steps, rounds))
           for c in cases},
    }  # fmt: skip
    for name, task in tasks.items():
        attempt(name, task, start + 60 * minutes, results)
        results["seconds"] = time.perf_counter() - start
        report.write(results, out)
    print(report.markdown(results))
    if any(c["result"] == "failed" for c in results["checks"]):
        raise TamingError(f"A check failed. {out / 'results.md'} says which.")


def attempt(name: str, task: Callable[[], None], end: float, results: dict[str, Any]) -> None:
    """Do a task in an empty folder; what fails, or is not done at the end of the time, is recorded as left out."""
    with TemporaryDirectory() as folder, chdir(folder):
        try:
            with time_limit(end - time.perf_counter()):
                task()
        except OutOfTime:
            results["left_out"][name] = "no time left"
        except (TamingError, RuntimeError, ValueError) as error:  # such as CUDA's out of memory
            results["left_out"][name] = str(error).splitlines()[0]
    benchmarks.free_memory()


def check(name: str, device: str, scale: Scale, results: dict[str, Any]) -> None:
    """Run a check and record what it found."""
    start = time.perf_counter()
    try:
        result, figures = "passed", checks.CHECKS[name](device, scale)
    except (checks.Failed, TamingError, RuntimeError) as error:
        result, figures = "failed", str(error).splitlines()[0]
    seconds = time.perf_counter() - start
    results["checks"].append({"name": name, "result": result, "seconds": seconds, "figures": figures})


@contextmanager
def time_limit(seconds: float) -> Generator[None, None, None]:
    """Raise `OutOfTime` in the block after these seconds."""

    def stop(*_: object) -> None:
        raise OutOfTime

    if seconds <= 0:
        raise OutOfTime
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def device_name(device: str) -> str:
    """The name of a device, for the results."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    typer.run(main)
