"""The steps of the measurement: each stage on each number of photos, undisturbed or killed in the middle."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.scale.processes import Watched, watch
from taming_core.drop_reasons import reason_of
from taming_core.files import read_json, write_json, write_text
from taming_core.fingerprints import digest, file_chunks, folder_fingerprint
from taming_core.params.load import packaged_params, read_yaml
from taming_core.tables.parquet import read_column
from taming_core.tables.rows import dropped_table

# What differs from the packaged params: small photos, as fast as they can be made, and shards that are worth a file.
CHANGES: dict[str, dict[str, Any]] = {
    "world": {"size": 96, "two_objects": 0.05},
    "detect": {"shard_size": 128},
    "caption": {"shard_size": 64},
    "materialize": {"shard_size": 128},
}
INPUTS = {
    "detect": (),
    "caption": ("--objects", "objects.parquet"),
    "materialize": ("--objects", "objects.parquet", "--captions", "captions.parquet"),
}
OUTPUTS = {"detect": "objects.parquet", "caption": "captions.parquet", "materialize": "rows"}
STAGES = tuple(OUTPUTS)


@dataclass(frozen=True)
class Measured:
    """A stage on a number of photos."""

    stage: str
    photos: int
    killed: bool
    seconds: float  # with start-up and the joining of shards, without what a kill lost
    photos_per_second: float
    steady_per_second: float | None  # while shards were made; None for fewer than three shards
    cpu_seconds: float | None  # of all processes; None with a kill
    peak_mib: float  # proportional set size of all processes together
    peak_main_mib: float
    processes: int
    lost_seconds: float | None  # by the kill: work done again, and the second start
    left_processes: int  # of the killed command, ten seconds later
    output_mib: float
    content: str  # digest of the output
    reasons: dict[str, int]


def write_params(path: Path, changes: Mapping[str, Mapping[str, Any]] = CHANGES) -> None:
    """The packaged params with changes, as JSON, which is YAML."""
    values = read_yaml(packaged_params(), packaged_params())
    for section, changed in changes.items():
        values[section] |= changed
    write_text(path, json.dumps(values, indent=2) + "\n")


def measure(stage: str, photos: Path, count: int, folder: Path, params: Path, words: Sequence[str], kill: bool) -> None:
    """Measure a stage once, and write what was found beside its output; what a broken measurement left is removed."""
    found = folder / f"{stage}.json"
    if found.exists():
        return
    shutil.rmtree(folder / "runs", ignore_errors=True)
    command = (stage, "--in", str(photos.resolve()), *INPUTS[stage], "--out", OUTPUTS[stage],
               "--params", str(params.resolve()), *words)  # fmt: skip
    size = CHANGES[stage]["shard_size"]
    parts = [watch(command, folder, max(1, count // size // 3) if kill else None)]
    if parts[0].killed:
        parts.append(watch(command, folder))
    write_json(found, asdict(measured(stage, count, size, parts, folder / OUTPUTS[stage])))


def measured(stage: str, count: int, size: int, parts: Sequence[Watched], output: Path) -> Measured:
    """What the processes of a stage took together; `size` is the number of photos of a shard."""
    lost = lost_seconds(*parts) if len(parts) == 2 else None
    seconds = sum(part.seconds for part in parts) - (lost or 0.0)
    interval = parts[0].interval
    return Measured(
        stage, count, parts[0].killed, seconds, count / seconds, size / interval if interval else None,
        None if lost is not None else parts[0].cpu_seconds, max(p.peak_mib for p in parts),
        max(p.peak_main_mib for p in parts), max(p.peak_processes for p in parts), lost, parts[0].left,
        size_of(output) / (1 << 20), content_of(output), reasons_of(output),
    )  # fmt: skip


def lost_seconds(first: Watched, second: Watched) -> float:
    """What a kill cost: the unfinished shard, and from the second start to its first shard, less what that takes."""
    started = next((seconds for seconds in second.shards if seconds), second.seconds)
    return first.seconds - first.shards[-1] + started - first.interval


def files_of(output: Path) -> Iterator[Path]:
    """A file itself, or the files of a folder."""
    yield from sorted(p for p in output.rglob("*") if p.is_file()) if output.is_dir() else [output]


def size_of(output: Path) -> int:
    """The bytes of a file or folder."""
    return sum(path.stat().st_size for path in files_of(output))


def content_of(output: Path) -> str:
    """A digest of a file, or of the files of a folder and their names."""
    return folder_fingerprint(output) if output.is_dir() else digest(file_chunks(output))


def reasons_of(output: Path) -> dict[str, int]:
    """Rows per drop reason, of a table, or of a folder of rows and the table of the dropped ones beside it."""
    tables = [*files_of(output), *([dropped_table(output)] if output.is_dir() else [])]
    return dict(Counter(reason_of(reason) for table in tables for reason in read_column(table, "drop_reason")))


def results(out: Path) -> list[Measured]:
    """All that is measured so far: undisturbed before killed, by number of photos."""
    found = [Measured(**read_json(path)) for path in out.glob("*/*/*.json") if path.stem in STAGES]
    return sorted(found, key=lambda m: (m.photos, m.killed, STAGES.index(m.stage)))
