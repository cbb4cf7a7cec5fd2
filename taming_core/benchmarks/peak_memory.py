"""Peak memory of `taming detect` on camera photos: whole processes, on mosaics of synthetic photos."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from taming_core.benchmarks.startup import WHOLE, run_seconds
from taming_core.errors import TamingError

SIZES = {24: (6000, 4000), 108: (12000, 9000)}  # megapixels -> width and height, as cameras and phones have them
COLUMNS, ROWS = 3, 2  # objects in a photo: as many as are large enough to be kept
TILES = ("world", "--split", "train", "--photos", str(8 * COLUMNS * ROWS), "--out", "tiles")


@dataclass(frozen=True)
class PeakMemory:
    """The peak of one run."""

    photos: int
    size: str  # of each
    peak_mib: int  # resident memory of the process, at its highest


def measure(folder: Path, counts: Sequence[int], params: Path | None) -> Iterator[PeakMemory]:
    """Measure every number of photos at every size, in fresh processes; photos of 256 pixels come first.

    Raises:
        TamingError: detection fails.
    """
    run_seconds(WHOLE, TILES, folder)
    tiles = sorted((folder / "tiles").rglob("*.jpg"))
    words = ("--params", str(params.resolve())) if params else ()
    for size in ((256, 256), *SIZES.values()):
        raw = folder / f"{size[0]}x{size[1]}"
        raw.mkdir()
        for number in range(max(counts)):
            mosaic(tiles[number % 8 :: 8], size).save(raw / f"{number:03}.jpg", quality=88)
            if number + 1 in counts:
                peak = peak_of(("detect", "--in", raw.name, "--out", f"{raw.name}.parquet", *words), folder)
                yield PeakMemory(number + 1, raw.name, peak)


def mosaic(tiles: Sequence[Path], size: tuple[int, int]) -> Image.Image:
    """A photo of some size, of objects beside each other; photos of 256 pixels show one."""
    columns, rows = (1, 1) if size == (256, 256) else (COLUMNS, ROWS)
    cell = size[0] // columns, size[1] // rows
    photo = Image.new("RGB", size)
    for i in range(columns * rows):
        with Image.open(tiles[i % len(tiles)]) as tile:
            photo.paste(tile.resize(cell, Image.Resampling.BICUBIC), (i % columns * cell[0], i // columns * cell[1]))
    return photo


def peak_of(words: Sequence[str], folder: Path) -> int:
    """The peak resident memory, in MiB, of a process that runs a command.

    On Linux a process begins with the peak of the one that starts it, so this module must import nothing large.

    Raises:
        TamingError: it fails, or the system does not count the memory of a process.
    """
    if not hasattr(os, "wait4"):
        raise TamingError("This system does not count the memory of a process. Measure on Linux or macOS.")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", WHOLE, *words], cwd=folder, env=env, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (folder / "output.txt").read_text(encoding="utf-8").splitlines()[-1:]
        raise TamingError(f"taming {words[0]} failed: {' '.join(last)} Run it by itself to see why.")
    return usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere
